//! How verdicts are shown: as a table with marks, as JSON, or only what is wrong.

use crate::{
    checks::{Category, Check, Problem, Verdict, all_well},
    output,
};
use clap::ValueEnum;
use serde_json::json;

/// Forms of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Form {
    /// Every check.
    #[default]
    Table,
    /// JSON.
    Json,
    /// Only what is wrong.
    Short,
}

/// All verdicts as text; with marks in colour where `colours` says so.
pub fn render(categories: &[Category], form: Form, colours: bool) -> String {
    match form {
        Form::Json => as_json(categories),
        Form::Table => as_table(categories, colours, |_| true),
        Form::Short => as_table(categories, colours, |check| !matches!(check.verdict, Verdict::Well(_))),
    }
}

fn as_table(categories: &[Category], colours: bool, shown: impl Fn(&Check) -> bool) -> String {
    let mut text = String::new();
    for category in categories {
        let checks: Vec<&Check> = category.checks.iter().filter(|check| shown(check)).collect();
        if checks.is_empty() {
            continue;
        }
        text.push_str(&format!("{}\n{}\n", category.name, "-".repeat(category.name.len())));
        for check in checks {
            text.push_str(&format!("{} {}\n", mark(&check.verdict, colours), check.description));
            text.push_str(&below(&check.verdict));
        }
        text.push('\n');
    }
    let result = if all_well(categories) { well(colours) } else { wrong(colours) };
    text.push_str(&format!("Status check results are {result}\n"));
    text
}

fn below(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Well(seen) => seen.iter().map(|line| format!("\t{line}\n")).collect(),
        Verdict::Warning(problem) | Verdict::Pending(problem) | Verdict::Wrong(problem) => {
            let mut text: String = problem.found.lines().map(|line| format!("    {line}\n")).collect();
            text.push_str(&format!("    hint: {}\n", problem.advice));
            text
        }
    }
}

fn mark(verdict: &Verdict, colours: bool) -> String {
    match verdict {
        Verdict::Well(_) => well(colours),
        Verdict::Warning(_) => coloured("‼", 33, colours),
        Verdict::Pending(_) | Verdict::Wrong(_) => wrong(colours),
    }
}

fn well(colours: bool) -> String {
    coloured("√", 32, colours)
}

fn wrong(colours: bool) -> String {
    coloured("×", 31, colours)
}

fn coloured(text: &str, colour: u8, colours: bool) -> String {
    if colours { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
}

fn as_json(categories: &[Category]) -> String {
    let check = |check: &Check| {
        let failed = |result: &str, problem: &Problem| json!({"description": check.description, "result": result, "error": problem.found, "hint": problem.advice});
        match &check.verdict {
            Verdict::Well(_) => json!({"description": check.description, "result": "success"}),
            Verdict::Warning(problem) => failed("warning", problem),
            Verdict::Pending(problem) | Verdict::Wrong(problem) => failed("error", problem),
        }
    };
    let category = |category: &Category| {
        let checks: Vec<_> = category.checks.iter().map(check).collect();
        json!({"categoryName": category.name, "checks": checks})
    };
    let categories_json: Vec<_> = categories.iter().filter(|c| !c.checks.is_empty()).map(category).collect();
    output::json(&json!({"success": all_well(categories), "categories": categories_json}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn categories() -> Vec<Category> {
        let checks = vec![
            Check::well("Link CRD exists", vec!["* west".into()]),
            Check::warning("versions match", "* west: older", "apply again"),
            Check::pending("gateway is running", "0 of 2 pods are ready", "see its log"),
        ];
        vec![
            Category { name: "linkspan-system", checks },
            Category { name: "linkspan-links", checks: vec![] },
        ]
    }

    #[test]
    fn the_table_is_linkerds() {
        let expected = "\
linkspan-system
---------------
√ Link CRD exists
\t* west
‼ versions match
    * west: older
    hint: apply again
× gateway is running
    0 of 2 pods are ready
    hint: see its log

Status check results are ×
";
        assert_eq!(render(&categories(), Form::Table, false), expected);
        let short = render(&categories(), Form::Short, true);
        assert!(!short.contains("Link CRD") && short.contains("\u{1b}[33m‼\u{1b}[0m versions"), "{short}");
        assert_eq!(render(&[], Form::Table, false), "Status check results are √\n");
    }

    #[test]
    fn json_has_linkerds_fields() {
        let read: serde_json::Value = serde_json::from_str(&render(&categories(), Form::Json, true)).unwrap();
        assert_eq!(read["success"], false);
        assert_eq!(read["categories"].as_array().unwrap().len(), 1);
        let checks = &read["categories"][0]["checks"];
        assert_eq!(checks[0]["result"], "success");
        assert_eq!((&checks[1]["result"], &checks[1]["hint"]), (&json!("warning"), &json!("apply again")));
        assert_eq!(checks[2]["error"], "0 of 2 pods are ready");
    }
}
