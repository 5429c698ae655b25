//! How a relay is drawn, on as much terminal as there is.

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use crate::cli::bus::seen::{Channel, Seen, bytes, grouped, span, span_ms};
use crate::cli::bus::status::title;
use crate::cli::text::columns;

use super::rates::Rates;

/// Lines of other hosts that are shown while there are channels to be shown, too.
const HOSTS_MAX: u16 = 8;

/// Below this many lines there is room for channels only.
const LOW: u16 = 10;

const CHANNELS: [&str; 9] =
    ["FROM", "TO", "CHAN", "WAY", "RATE/s", "WAITING", "CREDIT", "IDLE", "STATE"];
const HOSTS: [&str; 7] = ["HOST", "LINK", "RTT", "UNACKED", "WAITING", "SENDS", "RECEIVES"];

/// What is shown.
#[derive(Default)]
pub struct View {
    seen: Option<(Seen, Rates)>,
    /// Why there is nothing newer.
    pub trouble: Option<String>,
    pub paused: bool,
    by_name: bool,
    /// The first channel that is shown.
    top: usize,
}

impl View {
    pub fn show(&mut self, seen: Seen, rates: Rates) {
        self.trouble = None;
        self.top = self.top.min(seen.relay.channels.len().saturating_sub(1));
        self.seen = Some((seen, rates));
    }

    pub fn hear(&mut self, key: KeyCode) {
        let channels = self.seen.as_ref().map_or(0, |(seen, _)| seen.relay.channels.len());
        let last = channels.saturating_sub(1);
        match key {
            KeyCode::Char('n') => self.by_name = true,
            KeyCode::Char('r') => self.by_name = false,
            KeyCode::Down | KeyCode::Char('j') => self.top = (self.top + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown => self.top = (self.top + 10).min(last),
            KeyCode::PageUp => self.top = self.top.saturating_sub(10),
            KeyCode::Home => self.top = 0,
            _ => {}
        }
    }

    /// The channels in the order that was asked for.
    fn channels(&self) -> Vec<[String; 9]> {
        let Some((seen, rates)) = &self.seen else { return Vec::new() };
        let mut all: Vec<(&Channel, f64)> =
            seen.relay.channels.iter().zip(rates.channels.iter().copied()).collect();
        all.sort_by(|(one, rate), (other, other_rate)| {
            let name = |one: &Channel| (one.src.clone(), one.dst.clone(), one.chan);
            let by_rate = other_rate.total_cmp(rate).then(other.waiting().cmp(&one.waiting()));
            let by_name = name(one).cmp(&name(other));
            if self.by_name { by_name } else { by_rate.then(by_name) }
        });
        let row = |(one, rate): (&Channel, f64)| {
            [
                one.src.clone(),
                one.dst.clone(),
                one.chan.to_string(),
                one.direction.clone(),
                grouped(rate.round() as u64),
                grouped(u64::from(one.waiting())),
                bytes(one.credit),
                if one.direction == "out" { span_ms(one.idle_ms) } else { "-".into() },
                one.state.clone(),
            ]
        };
        all.into_iter().map(row).collect()
    }

    fn hosts(&self) -> Vec<[String; 7]> {
        let Some((seen, _)) = &self.seen else { return Vec::new() };
        let row = |route: &crate::cli::bus::seen::Route| {
            let link = seen.relay.links.iter().find(|link| link.host == route.host);
            let figure = |of: fn(&crate::cli::bus::seen::Link) -> String| {
                link.map_or_else(|| "-".to_string(), of)
            };
            [
                route.host.clone(),
                route.stand(),
                route.rtt_us.map_or("-".into(), |us| span(us * 1000)),
                bytes(route.unacked),
                figure(|link| bytes(link.waiting)),
                figure(|link| link.sends.to_string()),
                figure(|link| link.receives.to_string()),
            ]
        };
        seen.routes.iter().map(row).collect()
    }

    /// Two lines: who it is, and what it does.
    fn head(&self) -> [String; 2] {
        let Some((seen, rates)) = &self.seen else {
            return ["the relay was not heard of yet".into(), String::new()];
        };
        let whole = |rate: f64| grouped(rate.round() as u64);
        let volume = |rate: f64| bytes(rate.round() as u64);
        let moved = format!(
            "sent {}/s, {}/s; stored {}/s, {}/s; {} processes, {} channels, rings {}",
            whole(rates.sent),
            volume(rates.sent_bytes),
            whole(rates.stored),
            volume(rates.stored_bytes),
            seen.relay.processes.len(),
            seen.relay.channels.len(),
            bytes(seen.relay.ring_bytes)
        );
        [title(seen), moved]
    }

    fn foot(&self) -> String {
        match (&self.trouble, self.paused) {
            (Some(why), _) => why.clone(),
            (None, true) => "paused; p goes on".into(),
            (None, false) => "q quit  p pause  r by rate  n by name  up down scroll".into(),
        }
    }

    /// The same as text, for terminals that can do nothing.
    pub fn text(&self) -> String {
        let mut parts = self.head().to_vec();
        let channels = self.channels();
        if !channels.is_empty() {
            let names = CHANNELS.map(str::to_string);
            parts.push(columns(&[vec![names], channels].concat(), 4));
        }
        let hosts = self.hosts();
        if !hosts.is_empty() {
            parts.push(columns(&[vec![HOSTS.map(str::to_string)], hosts].concat(), 2));
        }
        if let Some(why) = &self.trouble {
            parts.push(why.clone());
        }
        parts.push(String::new());
        parts.join("\n")
    }

    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let hosts = self.hosts();
        let low = area.height < LOW;
        let host_lines = match low || hosts.is_empty() {
            true => 0,
            false => (hosts.len() as u16).min(HOSTS_MAX) + 2,
        };
        let head_lines = if low { 1 } else { 3 };
        let parts = [
            Constraint::Length(head_lines),
            Constraint::Min(1),
            Constraint::Length(host_lines),
            Constraint::Length(1),
        ];
        let [head, channels, others, foot] = Layout::vertical(parts).areas(area);
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let [title, moved] = self.head();
        let lines = vec![Line::styled(title, bold), Line::from(moved)];
        frame.render_widget(Paragraph::new(Text::from(lines)), head);
        let shown: Vec<_> = self.channels().into_iter().skip(self.top).collect();
        if shown.is_empty() {
            frame.render_widget(Paragraph::new("no channels go through this relay"), channels);
        } else {
            draw_table(frame, channels, &CHANNELS, &shown, 4);
        }
        if host_lines > 0 {
            draw_table(frame, others, &HOSTS, &hosts, 2);
        }
        let style = match self.trouble {
            Some(_) => Style::new().fg(Color::Red),
            None => Style::new().add_modifier(Modifier::DIM),
        };
        frame.render_widget(Paragraph::new(Line::styled(self.foot(), style)), foot);
    }
}

/// A table as wide as its cells.
fn draw_table<const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    names: &[&str; N],
    rows: &[[String; N]],
    left: usize,
) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([names[column].len()]).max().unwrap_or(0) as u16
    };
    // Whole columns, as many as there is room for.
    let mut room = i32::from(area.width) + 2;
    let fits = |width: &u16| {
        room -= i32::from(*width) + 2;
        room >= 0
    };
    let widths: Vec<u16> = (0..N).map(width).take_while(fits).collect();
    let shown = widths.len();
    let cell = |column: usize, text: &str| {
        let line = Line::from(text.to_string());
        let flush = column < left || column + 1 == N && left == 4;
        Cell::from(if flush { line.left_aligned() } else { line.right_aligned() })
    };
    let names = names.iter().take(shown).enumerate();
    let head = Row::new(names.map(|(column, name)| cell(column, name)));
    let head = head.style(Style::new().add_modifier(Modifier::REVERSED));
    let rows = rows.iter().map(|row| {
        let row = row.iter().take(shown).enumerate().map(|(column, text)| cell(column, text));
        Row::new(row.collect::<Vec<_>>())
    });
    let table = Table::new(rows, widths.into_iter().map(Constraint::Length)).header(head);
    frame.render_widget(table.column_spacing(2), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn it_fits_every_terminal() {
        let view = View::default();
        for (width, height) in [(80, 24), (20, 5), (1, 1), (300, 3), (10, 100)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
            terminal.draw(|frame| view.draw(frame)).expect("drawn");
        }
    }
}
