//! Metrics as programs describe them and as the documentation lists them.
//!
//! Name, type and meaning of each row are what a program says, and the labels where it has a sample: `BLESS=1` writes them
//! anew. Other labels are written by hand, and held to what is scraped on the clusters.

use crate::tools;
use anyhow::{Context, Result, ensure};
use std::{fmt::Write, fs};

/// The document that lists them, in the repository.
pub const DOCUMENT: &str = "charts/linkspan/METRICS.md";

/// One metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name, without what its type adds to it.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `unknown`.
    pub kind: String,
    /// What it is.
    pub help: String,
    /// Names of its labels, where they are known.
    pub labels: Option<Vec<String>>,
}

impl Metric {
    /// A name under which samples are found.
    pub fn series(&self) -> String {
        match self.kind.as_str() {
            "counter" => format!("{}_total", self.name),
            "histogram" => format!("{}_bucket", self.name),
            _ => self.name.clone(),
        }
    }
}

/// The metrics that a scraped page describes, by its comments; one without samples is described, too.
pub fn described(page: &str) -> Vec<Metric> {
    let of = |word: &str, name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("# {word} {name} ")));
        line.unwrap_or_default().trim_end_matches('.').to_owned()
    };
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names
        .map(|name| Metric {
            name: name.to_owned(),
            kind: of("TYPE", name),
            help: of("HELP", name),
            labels: labels(page, name),
        })
        .collect()
}

/// The labels of metric `name`, if the page has a sample of it. What its type adds to name and labels does not count.
fn labels(page: &str, name: &str) -> Option<Vec<String>> {
    let samples = page.lines().filter_map(|line| line.strip_prefix(name));
    let ours = |rest: &&str| {
        let rest = ["_total", "_bucket"].iter().find_map(|s| rest.strip_prefix(s)).unwrap_or(rest);
        rest.starts_with(['{', ' '])
    };
    let sample = samples.filter(ours).next()?;
    let pairs =
        sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(pairs, _)| pairs);
    let keys = pairs.split("\",").filter_map(|pair| pair.split_once("=\"")).map(|(key, _)| key);
    Some(keys.filter(|key| *key != "le").map(str::to_owned).collect())
}

/// The metrics of the document's tables.
pub fn documented(document: &str) -> Vec<Metric> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect();
        let [name, kind, labels, help] = cells[..] else { return None };
        let labels = match labels {
            "?" => None,
            "none" => Some(vec![]),
            _ => Some(labels.split(", ").map(str::to_owned).collect()),
        };
        Some(Metric {
            name: name.trim_end_matches('`').to_owned(),
            kind: kind.to_owned(),
            help: help.to_owned(),
            labels,
        })
    };
    document.lines().filter_map(row).collect()
}

/// Holds section `title` of the document to `metrics`; with `BLESS=1` it is made anew, where labels are not known with those
/// of the rows that were there.
///
/// # Errors
/// When they differ, or when labels are not written down.
pub fn hold_to(title: &str, metrics: &[Metric]) -> Result<()> {
    let path = tools::repository().join(DOCUMENT);
    let text = fs::read_to_string(&path)?;
    let now = with_section(&text, title, metrics)?;
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        return Ok(fs::write(&path, now)?);
    }
    let differs = text.lines().zip(now.lines()).find(|(before, now)| before != now);
    ensure!(text == now, "{DOCUMENT} is not what the programs say: {differs:?}; renew it with BLESS=1");
    let open: Vec<Metric> = documented(&text).into_iter().filter(|m| m.labels.is_none()).collect();
    ensure!(open.is_empty(), "write the labels (or `none`) of these into {DOCUMENT}: {open:?}");
    Ok(())
}

/// Holds the document to have a row for each of `metrics`, as the program describes it. Rows of what did not happen may
/// be there besides.
///
/// # Errors
/// The row that is missing, or wrong.
pub fn all_documented(metrics: &[Metric]) -> Result<()> {
    let documented = documented(&fs::read_to_string(tools::repository().join(DOCUMENT))?);
    for Metric { name, kind, help, .. } in metrics {
        let found = documented.iter().find(|m| m.name == *name);
        let same = found.is_some_and(|m| m.kind == *kind && m.help == *help);
        ensure!(
            same,
            "{DOCUMENT} needs the row `| `{name}` | {kind} | <labels> | {help} |`; it has {found:?}"
        );
    }
    Ok(())
}

fn with_section(text: &str, title: &str, metrics: &[Metric]) -> Result<String> {
    let (begin, end) = (format!("<!-- {title}: generated, renew with BLESS=1 -->\n"), "<!-- end -->\n");
    let (before, rest) = text.split_once(&begin).with_context(|| format!("no line {begin:?}"))?;
    let (old, after) = rest.split_once(end).with_context(|| format!("no line {end:?} after {begin:?}"))?;
    let old = documented(old);
    let mut rows = String::from("\n| metric | type | labels | what it is |\n|---|---|---|---|\n");
    for metric in metrics {
        let known = old.iter().find(|m| m.name == metric.name).and_then(|m| m.labels.clone());
        let labels = metric.labels.clone().or(known);
        let labels = labels.map_or("?".to_owned(), |labels| match labels[..] {
            [] => "none".to_owned(),
            _ => labels.join(", "),
        });
        writeln!(rows, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind, metric.help)?;
    }
    Ok(format!("{before}{begin}{rows}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_a_sample() {
        let page = "a_total 3\nb 1\ntook_bucket{link=\"x,y\",result=\"ok\",le=\"0.1\"} 1\n";
        assert_eq!(labels(page, "a"), Some(vec![]));
        assert_eq!(labels(page, "took"), Some(vec!["link".to_owned(), "result".to_owned()]));
        assert_eq!(labels(page, "c"), None, "no sample");
    }

    #[test]
    fn a_page_and_a_table_say_the_same() {
        let page = "# HELP flows Flows begun.\n# TYPE flows counter\nflows_total{link=\"a\"} 3\n# EOF\n";
        let mut metrics = described(page);
        assert_eq!((metrics[0].series().as_str(), metrics[0].help.as_str()), ("flows_total", "Flows begun"));
        assert_eq!(metrics[0].labels.as_deref(), Some(&["link".to_owned()][..]));
        let table =
            "| metric | type | labels | what it is |\n| `flows` | counter | link, reason | Flows begun |\n";
        metrics[0].labels = Some(vec!["link".to_owned(), "reason".to_owned()]);
        assert_eq!(documented(table), metrics);
    }
}
