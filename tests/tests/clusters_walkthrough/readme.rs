//! The walkthrough's commands, taken from the README.

use anyhow::{Context, Result, ensure};
use linkspan_tests::{clusters, tools};
use std::{collections::VecDeque, time::Duration};

/// Time one command may take.
const COMMAND: Duration = Duration::from_secs(600);

/// The commands of the walkthrough.
pub(crate) struct Steps {
    /// Not run yet, in their order.
    rest: VecDeque<String>,
    /// Run last.
    last: String,
}

/// All commands of the section "Walkthrough": each line of its `sh` blocks that is no comment.
pub(crate) fn steps(readme: &str) -> Result<Steps> {
    let section = readme.split("\n## ").find(|s| s.starts_with("Walkthrough")).context("no walkthrough")?;
    let mut commands = VecDeque::new();
    let mut inside = false;
    for line in section.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside && !line.starts_with('#') && !line.is_empty() => commands.push_back(line.to_owned()),
            _ => {}
        }
    }
    ensure!(commands.len() > 10, "only {} commands found", commands.len());
    Ok(Steps { rest: commands, last: String::new() })
}

impl Steps {
    /// Runs commands in a shell of their own each, in the repository's root, up to and with the first that holds
    /// `mark`; answers what that one printed. A command that fails ends it.
    pub(crate) async fn run_until(&mut self, mark: &str) -> Result<String> {
        while let Some(command) = self.rest.pop_front() {
            self.last = command;
            let output = self.again().await?;
            if self.last.contains(mark) {
                return Ok(output);
            }
        }
        anyhow::bail!("the README has no further command with {mark:?}")
    }

    /// Runs the command that was run last once more.
    pub(crate) async fn again(&self) -> Result<String> {
        println!("$ {}", self.last);
        // Each command has its own shell here, so the environment is taken anew for each.
        let script =
            format!("cd '{}'; eval \"$(make -s env)\"; {}", tools::repository().display(), self.last);
        let output = clusters::shell(&script, COMMAND).await?.success()?;
        print!("{output}");
        Ok(output)
    }

    /// What has not been run.
    pub(crate) fn rest(&self) -> &VecDeque<String> {
        &self.rest
    }
}
