//! How results are shown: documents, tables, marks. Pure, apart from [`print()`] and [`note()`].

use crate::manifests::object::Object;
use jiff::SignedDuration;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, IsTerminal, Write};

/// In which form documents are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// YAML documents.
    #[default]
    Yaml,
    /// One JSON List.
    Json,
}

/// In which form rows are printed, where it is no table for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A JSON array.
    Json,
    /// More columns.
    Wide,
}

/// The same where a table has no more columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum JsonForm {
    /// JSON.
    Json,
}

/// One value as a YAML document without the leading `---`.
pub fn yaml(value: &Value) -> String {
    serde_norway::to_string(value).expect("a JSON value is always a YAML value")
}

/// One value as indented JSON.
pub fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("our own types have text keys only");
    text.push('\n');
    text
}

/// Objects as `kubectl -f -` reads them. No objects are an empty List, so that `kubectl delete -f -` has an input.
/// `comment` goes before them in YAML; JSON has no comments.
pub fn documents(objects: &[Object], format: Format, comment: Option<&str>) -> String {
    let list = || serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    if format == Format::Json {
        return json(&list());
    }
    let mut text = String::new();
    for line in comment.unwrap_or_default().lines() {
        text.push_str(&format!("# {line}\n"));
    }
    if objects.is_empty() {
        text.push_str(&format!("---\n{}", yaml(&list())));
    }
    for object in objects {
        text.push_str("---\n");
        text.push_str(&yaml(object));
    }
    text
}

/// One column of a table.
pub struct Column {
    /// Head of the column.
    pub head: &'static str,
    /// At least this wide.
    pub width: usize,
    /// Numbers stand at the right.
    pub right: bool,
}

/// A table in which every cell, the last too, is followed by two spaces.
pub fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let width = |i: usize, column: &Column| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
        cells.chain([column.width, column.head.len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(|(i, column)| width(i, column)).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for ((cell, column), width) in cells.into_iter().zip(columns).zip(&widths) {
            let padded = if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            text.push_str(&padded);
            text.push_str("  ");
        }
        text.push('\n');
        text
    };
    let mut text = line(columns.iter().map(|column| column.head).collect());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// A span as kubectl writes ages, in its two largest units: `2d3h`, `5m1s`, `0s`.
pub fn time_span(span: SignedDuration) -> String {
    let seconds = span.as_secs().unsigned_abs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(units.len() - 1);
    let mut left = seconds;
    let mut text = String::new();
    for (unit, size) in units.iter().skip(first).take(2) {
        if left >= *size || text.is_empty() {
            text.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    text
}

/// Whether colours and moving progress suit this stream: a terminal, and nobody asked for none
/// (<https://no-color.org>).
pub fn is_lively(stream: &impl IsTerminal) -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    stream.is_terminal() && !plain && !dumb
}

/// Writes to stdout.
///
/// # Errors
/// When stdout cannot be written: the disk is full, or whoever reads it has gone.
pub fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes what is no text to stdout.
///
/// # Errors
/// As [`print()`].
pub fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => {
            anyhow::anyhow!(
                "the output was cut off: its reader has gone; let it read all, or write to a file"
            )
        }
        _ => anyhow::anyhow!("the output cannot be written: {e}; write to another place"),
    })
}

/// Writes a line to stderr; one that nobody reads any more is no failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_separated_and_an_empty_list_is_one() {
        let text = documents(&[json!({"a": "on"}), json!({"b": "4143"})], Format::Yaml, Some("until\nthen"));
        let read: Vec<Value> = serde_norway::Deserializer::from_str(&text)
            .map(|d| serde::Deserialize::deserialize(d).unwrap())
            .collect();
        assert!(text.starts_with("# until\n# then\n---\n"), "{text}");
        assert_eq!(read, [json!({"a": "on"}), json!({"b": "4143"})]);
        assert!(text.contains("'4143'"), "numbers in text stay text: {text}");
        for format in [Format::Yaml, Format::Json] {
            let empty: Value = serde_norway::from_str(&documents(&[], format, None)).unwrap();
            assert_eq!(empty, json!({"apiVersion": "v1", "kind": "List", "items": []}));
        }
    }

    #[test]
    fn spans_are_written_in_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (301, "5m1s"),
            (3_600, "1h"),
            (90_061, "1d1h"),
            (86_405, "1d"),
            (-60, "1m"),
        ] {
            assert_eq!(time_span(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn every_cell_is_followed_by_two_spaces() {
        let columns =
            [Column { head: "A", width: 3, right: false }, Column { head: "NUM", width: 5, right: true }];
        assert_eq!(
            table(&columns, &[vec!["long-name".into(), "7".into()]]),
            "A            NUM  \nlong-name      7  \n"
        );
    }
}
