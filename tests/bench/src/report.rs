//! Results as a table and as plots.

use crate::{
    plot::{Bars, Line},
    result::{Results, Row, Spread},
    scenarios::{Bar, COSTED, FLOOR, OURS, bar, reference, title},
};
use std::{collections::BTreeMap, fmt::Write};

/// A machine of which something else uses more than this is called busy.
const BUSY: f64 = 0.1;

/// Names of all scenarios in the order they were measured in.
fn scenarios(results: &Results) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in &results.rows {
        if !names.contains(&row.scenario.as_str()) {
            names.push(&row.scenario);
        }
    }
    names
}

/// Our ratios to the floor.
pub(crate) fn ratios(results: &Results) -> BTreeMap<String, f64> {
    let ratio = |name: &str| {
        let ratio = results.row(name, OURS)?.ratio(results.row(name, FLOOR)?)?.median;
        Some((name.to_owned(), (ratio * 1000.0).round() / 1000.0))
    };
    let names = scenarios(results).into_iter().filter(|name| reference(name) == Some(FLOOR));
    names.filter_map(ratio).collect()
}

/// All results, in Markdown.
pub(crate) fn table(results: &Results) -> String {
    let mut text = format!("\n{}, {}\n", results.machine, results.suite);
    for skipped in &results.skipped {
        writeln!(text, "SKIPPED: {skipped}").ok();
    }
    text += "\n| scenario | chain | median (min - max) | ratio (min - max) | bar |\n|---|---|---|---|---|\n";
    for name in scenarios(results) {
        for row in results.rows.iter().filter(|row| row.scenario == name) {
            text += &line(results, row);
        }
    }
    for row in results.rows.iter().filter(|row| row.failure.is_some()) {
        let failed = row.values.iter().filter(|v| v.is_none()).count();
        let why = row.failure.as_deref().unwrap_or_default();
        writeln!(text, "\n{} {}: {failed} of {} failed: {why}", row.scenario, row.chain, row.values.len())
            .ok();
    }
    let most = results.rows.iter().map(|row| row.others).fold(0.0, f64::max);
    if most > BUSY {
        writeln!(
            text,
            "\nThe machine was busy: something else used up to {:.0} % of its CPUs.",
            most * 100.0
        )
        .ok();
    }
    text
}

fn line(results: &Results, row: &Row) -> String {
    let Some(value) = row.spread() else {
        return format!("| {} | {} | failed | | |\n", title(&row.scenario), row.chain);
    };
    let ratio = reference(&row.scenario).and_then(|other| row.ratio(results.row(&row.scenario, other)?));
    let busy = if row.others > BUSY { " (busy)" } else { "" };
    format!(
        "| {} | {} | {} {}{busy} | {} | {} |\n",
        title(&row.scenario),
        row.chain,
        shown(&value),
        row.unit,
        ratio.as_ref().map(shown).unwrap_or_default(),
        verdict(results, row).unwrap_or_default(),
    )
}

fn shown(spread: &Spread) -> String {
    let digits = match spread.median.abs() {
        m if m >= 100.0 => 0,
        m if m >= 10.0 => 1,
        m if m >= 0.1 => 2,
        _ => 4,
    };
    let Spread { median, min, max } = spread;
    format!("{median:.digits$} ({min:.digits$} - {max:.digits$})")
}

/// Our bar, and whether the median meets it.
fn verdict(results: &Results, row: &Row) -> Option<String> {
    let ratio = |to| Some(row.ratio(results.row(&row.scenario, to)?)?.median);
    let (met, bar) = match bar(&row.scenario, &row.chain)? {
        Bar::Ratio(to, most) => (ratio(to)? <= most, format!("<= {most} x {to}")),
        Bar::RatioAtLeast(to, least) => (ratio(to)? >= least, format!(">= {least} x {to}")),
        Bar::Value(most) => (row.spread()?.median <= most, format!("<= {most}")),
    };
    Some(format!("{bar}: {}", if met { "met" } else { "missed" }))
}

/// Plots: file name and SVG.
pub(crate) fn plots(results: &Results) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    for name in scenarios(results) {
        let to = reference(name);
        let rows = results.rows.iter().filter(|row| row.scenario == name);
        let lines: Vec<Line> = rows
            .filter_map(|row| {
                let spread = match to {
                    Some(to) => row.ratio(results.row(name, to)?)?,
                    None => row.spread()?,
                };
                Some(Line { name: row.chain.clone(), spread, is_ours: row.chain == OURS })
            })
            .collect();
        let unit = match to {
            Some(to) => format!("ratio to {to}"),
            None => {
                results.rows.iter().find(|r| r.scenario == name).map(|r| r.unit.clone()).unwrap_or_default()
            }
        };
        let cpu = COSTED.iter().any(|c| c.name == name);
        let title = format!("{}{}", title(name), if cpu { ": CPU of both gateways" } else { "" });
        if lines.len() > 1 {
            plots.push((format!("{name}.svg"), Bars { title, unit, lines, mark: mark(name) }.svg()));
        }
    }
    plots
}

fn mark(scenario: &str) -> Option<f64> {
    bar(scenario, OURS).map(|bar| match bar {
        Bar::Ratio(_, at) | Bar::RatioAtLeast(_, at) | Bar::Value(at) => at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        for (floor, ours) in [(2.0, 1.0), (2.0, 1.2), (2.0, 1.6)] {
            results.add("bulk-1-down", FLOOR, "CPU s/GB", Ok(floor), 0.0);
            results.add("bulk-1-down", OURS, "CPU s/GB", Ok(ours), 0.3);
        }
        results.add("keep-alive", OURS, "CPU us", Err("broken".to_owned()), 0.0);
        results
    }

    #[test]
    fn the_table_tells_ratios_bars_failures_and_a_busy_machine() {
        let text = table(&results());
        assert!(text.contains("| 0.60 (0.50 - 0.80) | <= 0.7 x floor: met |"), "{text}");
        assert!(text.contains("1 of 1 failed: broken"), "{text}");
        assert!(text.contains("used up to 30 %") && text.contains("(busy)"), "{text}");
    }

    #[test]
    fn a_baseline_holds_ratios_to_the_floor() {
        assert_eq!(ratios(&results()), BTreeMap::from([("bulk-1-down".to_owned(), 0.6)]));
    }

    #[test]
    fn a_plot_shows_every_chain() {
        let plots = plots(&results());
        let [(name, svg)] = &plots[..] else { panic!("{plots:?}") };
        assert!(name == "bulk-1-down.svg" && svg.contains(">linkspan<") && svg.contains(">floor<"), "{svg}");
    }
}
