//! `ringlane check` and `ringlane explain`: a config from outside, without a relay.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::running::{TempDir, complaint, output};

/// The smallest file, as the README shows it.
const SMALLEST: &str = r#"[cluster]
name = "demo"
secret_file = "demo.secret"
[[host]]
name = "a"
relay = ["tcp://10.0.0.1:7000"]
nodes = ["login", "web"]
[[host]]
name = "b"
relay = ["tcp://10.0.0.2:7000"]
nodes = ["db", "audit"]
"#;

/// A folder with a config and its secret.
struct Place {
    dir: TempDir,
    config: String,
}

impl Place {
    fn new(name: &str, text: &str) -> Place {
        let dir = TempDir::new(name);
        let config = dir.0.join("demo.toml");
        fs::write(&config, text).expect("a config");
        let place = Place { config: config.display().to_string(), dir };
        place.secret(b"0123456789abcdef0123456789abcdef\n", 0o600);
        place
    }

    fn secret(&self, bytes: &[u8], mode: u32) {
        let path = self.secret_path();
        fs::write(&path, bytes).expect("a secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    fn secret_path(&self) -> PathBuf {
        self.dir.0.join("demo.secret")
    }

    /// Exit code, stdout and stderr of `check` with more arguments.
    fn check(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let arguments = [&["check", &self.config], more].concat();
        let output = output(&arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said, complaint(&output))
    }

    /// The same of `explain`.
    fn explain(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let arguments = [&["explain", "--config", &self.config], arguments].concat();
        let output = output(&arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said, complaint(&output))
    }
}

#[test]
fn a_right_config_is_summed_up() {
    let place = Place::new("check-right", SMALLEST);
    let (code, said, errors) = place.check(&[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{said}");
    for part in ["cluster demo", "2: a (2 nodes), b (2 nodes)", "32 bytes in", "default    all "] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert!(!said.contains("0123456789"), "the secret is printed: {said}");
}

#[test]
fn what_one_relay_would_do_is_shown() {
    let place = Place::new("check-host", SMALLEST);
    let (code, said, _) = place.check(&["--host", "b"]);
    assert_eq!(code, Some(0));
    for part in ["@ringlane-UID-b", "listens at  tcp://10.0.0.2:7000", "a at tcp://10.0.0.1:7000"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let (code, said, errors) = place.check(&["--host", "c"]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(errors.contains("no host `c`") && errors.contains("a, b"), "{errors}");
}

#[test]
fn a_wrong_config_gets_every_problem_with_its_line_and_a_caret() {
    let wrong = SMALLEST.replace("nodes = [\"login\"", "nodse = [\"login\"")
        + "[[channel]]\nto = \"bd\"\nring = \"3MiB\"\n";
    let place = Place::new("check-wrong", &wrong);
    let (code, said, errors) = place.check(&[]);
    assert_eq!((code, said.as_str()), (Some(1), ""), "{errors}");
    let at = |line: &str| format!("demo.toml:{line}: ");
    for part in [
        at("7:1") + "unknown key `nodse` in [[host]]",
        "7 | nodse = [\"login\", \"web\"]\n  | ^^^^^\n  = did you mean `nodes`?".into(),
        at("13:6") + "there is no node `bd`",
        "= did you mean `db`?".into(),
        at("14:8") + "`ring` is 3MiB",
        "3 errors in".into(),
    ] {
        assert!(errors.contains(&part), "{part} is not in\n{errors}");
    }
}

#[test]
fn a_config_that_cannot_be_read_is_exit_code_2() {
    let place = Place::new("check-absent", SMALLEST);
    fs::remove_file(&place.config).expect("it was there");
    let (code, _, errors) = place.check(&[]);
    assert_eq!((code, errors.lines().count()), (Some(2), 1), "{errors}");
    assert!(errors.starts_with("ringlane: cannot read ") && errors.contains("demo.toml"));
}

#[test]
fn a_secret_that_others_may_read_or_that_is_not_there_says_what_to_do() {
    let place = Place::new("check-secret", SMALLEST);
    for mode in [0o640, 0o604, 0o620] {
        place.secret(b"0123456789abcdef", mode);
        let (code, _, errors) = place.check(&[]);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains("demo.toml:3:15: ") && errors.contains("chmod 600 "), "{errors}");
    }
    place.secret(b"short\n", 0o600);
    assert!(place.check(&[]).2.contains("it has 5 bytes, and needs 16"));
    fs::remove_file(place.secret_path()).expect("it was there");
    let (code, _, errors) = place.check(&[]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("make one with: (umask 077; head -c 32"), "{errors}");
    fs::create_dir(place.secret_path()).expect("a folder");
    assert!(place.check(&[]).2.contains("is not a regular file"));
}

#[test]
fn a_note_is_no_error() {
    let more = "[[channel]]\nfrom = \"worker.*\"\n[limits]\nroutes = 7\n";
    let place = Place::new("check-note", &format!("{SMALLEST}{more}"));
    let (code, said, errors) = place.check(&[]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("demo.toml:12: note: `worker.*` is nobody's name so far"), "{errors}");
    assert!(said.contains("[limits] routes = 7") && said.contains(" settings more"), "{said}");
}

#[test]
fn explain_says_way_rule_and_access_without_the_secret() {
    let more = "[[channel]]\nfrom = \"login\"\nto = \"*@b\"\nchan = 3\nring = \"64KiB\"\n";
    let place = Place::new("explain", &format!("{SMALLEST}{more}"));
    fs::remove_file(place.secret_path()).expect("it was there");
    let (code, said, errors) = place.explain(&["login", "db@b", "--chan", "3"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    for part in [
        "login@a -> db@b, channel 3: through two relays",
        "login@a | ring of 64KiB | relay a | tcp://10.0.0.2:7000 | relay b | ring of 64KiB | db@b",
        "[[channel]] from login to *@b chan 3, line 12",
        "allowed: no [[acl.rule]] fits",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let (_, said, _) = place.explain(&["login", "web"]);
    assert!(said.starts_with("login@a -> web@a, channel 0: direct\n"), "{said}");
}

#[test]
fn explain_for_machines_is_one_object() {
    let place = Place::new("explain-json", SMALLEST);
    let (code, said, _) = place.explain(&["web", "audit", "--json"]);
    assert_eq!(code, Some(0));
    for part in ["\"way\": \"remote\"", "\"allowed\": true", "\"ring\": 1048576"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert!(said.starts_with('{') && said.trim_end().ends_with('}'), "{said}");
}

#[test]
fn explain_of_an_unknown_name_or_over_a_wrong_config_is_one_line() {
    let place = Place::new("explain-wrong", SMALLEST);
    let (code, _, errors) = place.explain(&["login", "bd"]);
    assert_eq!((code, errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.contains("did you mean `db`?"), "{errors}");
    fs::write(&place.config, SMALLEST.replace("nodes", "nodse")).expect("a config");
    let (code, _, errors) = place.explain(&["login", "db"]);
    assert_eq!((code, errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.contains("demo.toml:7:1: unknown key `nodse`"), "{errors}");
    assert!(errors.contains("`ringlane check "), "{errors}");
}
