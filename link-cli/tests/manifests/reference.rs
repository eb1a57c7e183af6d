//! The reference of all commands, `link-cli/README.md`, made from the command line itself.

use crate::support::{same_as_file, workspace};
use clap::{Arg, Command, CommandFactory, Parser};
use link_cli::cli::Cli;
use std::path::Path;

#[test]
fn the_reference_is_what_the_command_line_says() {
    let mut root = Cli::command();
    root.build();
    let mut text = String::from(
        "# link-cli\n\n<!-- Made from the command line: `BLESS=1 cargo t -p link-cli reference` writes it anew. -->\n\n",
    );
    text.push_str(&format!("{}.\n\n", about(&root)));
    text.push_str("| command | what it does |\n|---|---|\n");
    let commands = all(&root, "link-cli");
    for (path, command) in &commands {
        text.push_str(&format!("| [`{path}`](#{}) | {} |\n", path.replace(' ', "-"), about(command)));
    }
    let after = root.get_after_help().unwrap().to_string();
    let (exit_codes, _) = after.split_once("\nExamples:").unwrap();
    text.push_str(&format!("\n```\n{}\n```\n\n## Global options\n\n", exit_codes.trim_end()));
    text.push_str(&options(&root, true));
    for (path, command) in &commands {
        text.push_str(&format!("\n## {path}\n\n{}.\n\n", about(command)));
        text.push_str(&options(command, false));
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (_, examples) = help.split_once("Examples:\n").unwrap();
        let examples: Vec<&str> = examples.lines().map(str::trim).collect();
        text.push_str(&format!("```sh\n{}\n```\n", examples.join("\n")));
    }
    same_as_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"), &text);
}

#[test]
fn every_command_of_the_documents_can_be_typed() {
    let mut found = 0;
    for document in
        ["README.md", "charts/linkspan/README.md", "charts/linkspan-link/README.md", "CONTRIBUTING.md"]
    {
        let text = std::fs::read_to_string(workspace().join(document)).unwrap_or_default();
        // Commands stand in code: between backticks, or on lines of their own.
        let parts = text.split(['`', '\n', '|', '>', ';', ')']);
        for line in parts.map(str::trim).filter(|part| part.starts_with("link-cli --")) {
            let words = line.split_whitespace().map(|word| word.trim_matches('\''));
            let read = Cli::try_parse_from(words);
            assert!(read.is_ok(), "{document}: {line}: {}", read.unwrap_err());
            found += 1;
        }
    }
    assert!(found >= 9, "{found}");
}

fn all(command: &Command, path: &str) -> Vec<(String, Command)> {
    let mut found = vec![];
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let path = format!("{path} {}", below.get_name());
        found.push((path.clone(), below.clone()));
        found.extend(all(below, &path));
    }
    found
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn options(command: &Command, global: bool) -> String {
    let shown = |arg: &&Arg| {
        arg.is_global_set() == global
            && !arg.is_hide_set()
            && !["help", "version"].contains(&arg.get_id().as_str())
    };
    let rows: Vec<String> = command.get_arguments().filter(shown).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("| option | meaning |\n|---|---|\n{}\n", rows.concat())
}

fn row(arg: &Arg) -> String {
    let value = if arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        names.iter().map(|name| format!(" {name}")).collect()
    } else {
        String::new()
    };
    let flag = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}{value}"),
        (None, Some(long)) => format!("--{long}{value}"),
        _ => value.trim().to_owned(),
    };
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let possible: Vec<String> = arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    if arg.get_action().takes_values() && !possible.is_empty() {
        help.push_str(&format!(": {}", possible.join(", ")));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        help.push_str(&format!(" (default {})", defaults.join(",")));
    }
    let required = if arg.is_required_set() { ", required" } else { "" };
    format!("| `{flag}`{required} | {} |\n", help.replace('|', "\\|").replace('<', "&lt;"))
}
