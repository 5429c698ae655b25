//! From text to a [`Cluster`]: hosts and nodes first, then what speaks of them.

use std::path::Path;

use toml::de::DeTable;

use super::names::Names;
use super::reader::Section;
use super::report::{ConfigErrors, Report};
use super::{Cluster, secret, settings};

/// Bytes as text.
pub(super) fn as_text<'b>(bytes: &'b [u8], file: &str) -> Result<&'b str, ConfigErrors> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        let mut report = Report::new(std::str::from_utf8(good).unwrap_or_default());
        let end = good.len();
        report.wrong(end..end, "here begins something that is not UTF-8 text");
        report.into_errors(file)
    })
}

/// Builds a cluster from the text of `file`. Other files are found from `folder`.
pub(super) fn build(
    text: &str,
    file: &str,
    folder: Option<&Path>,
    with_secret: bool,
) -> Result<Cluster, ConfigErrors> {
    let mut report = Report::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        report.wrong(error.span().unwrap_or(0..0), error.message());
    }
    if !errors.is_empty() {
        // What stands in such a text is a guess: what else is wrong with it is not worth saying.
        return Err(report.into_errors(file));
    }
    let mut cluster = Cluster::default();
    fill(&mut report, document.get_ref(), folder, with_secret, &mut cluster);
    if report.is_clean() { Ok(cluster) } else { Err(report.into_errors(file)) }
}

fn fill(
    report: &mut Report<'_>,
    document: &DeTable<'_>,
    folder: Option<&Path>,
    with_secret: bool,
    cluster: &mut Cluster,
) {
    let empty = DeTable::new();
    let root = Section::root(report, document);
    let head = root.table(report, "cluster", &empty);
    settings::head(report, &head, cluster, folder);
    let limits = root.table(report, "limits", &empty);
    settings::limits(report, &limits, &mut cluster.limits);
    let ageing = root.table(report, "ageing", &empty);
    settings::ageing(report, &ageing, &mut cluster.ageing);
    let links = root.table(report, "link", &empty);
    settings::links(report, &links, &mut cluster.links);
    let metrics = root.table(report, "metrics", &empty);
    cluster.metrics = settings::metrics(report, &metrics, "listen");
    if root.has("tls") {
        let tls = root.table(report, "tls", &empty);
        cluster.tls = Some(settings::tls(report, &tls, folder));
    }
    let mut names = Names::new(report, cluster);
    names.hosts(&root);
    names.nodes(&root);
    names.groups(&root);
    names.rules(&root, &empty);
    names.look_back();
    if cluster.hosts.len() > 1 {
        head.required(report, "secret_file", "\"demo.secret\"");
    }
    if let (true, Some(path)) = (with_secret, &cluster.secret_file) {
        let span = head.text(report, "secret_file").map_or(0..0, |(_, span)| span);
        match secret::read(path) {
            Ok(secret) => cluster.secret = Some(secret),
            Err((what, Some(help))) => report.wrong_do(span, what, help),
            Err((what, None)) => report.wrong(span, what),
        }
    }
}
