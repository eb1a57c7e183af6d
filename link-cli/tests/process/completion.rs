//! Completion scripts: made for every shell, and read by those that are installed.

use crate::support::{Folder, find, link_cli, run};
use std::process::Command;

#[test]
fn every_shell_has_a_script_that_it_can_read() {
    let folder = Folder::new();
    for (shell, check) in [
        ("bash", Some(&["bash", "-n"][..])),
        ("zsh", Some(&["zsh", "-n"])),
        ("fish", Some(&["fish", "--no-execute"])),
        ("powershell", None),
        ("elvish", None),
    ] {
        let (code, script, stderr) = run(&mut link_cli(["completion", shell]));
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{shell}");
        for word in ["link-cli", "gateways", "cluster-name", "proxy-metrics"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let file = folder.write(shell, &script);
        let Some(check) = check else {
            parse_powershell(shell, &file);
            continue;
        };
        if find(check[0]).is_none() {
            println!("SKIPPED: every_shell_has_a_script_that_it_can_read: {} is not installed", check[0]);
            continue;
        }
        let output = Command::new(check[0]).args(&check[1..]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn parse_powershell(shell: &str, file: &std::path::Path) {
    if shell != "powershell" {
        return;
    }
    let Some(pwsh) = find("pwsh") else {
        println!("SKIPPED: every_shell_has_a_script_that_it_can_read: pwsh is not installed");
        return;
    };
    let parse = format!(
        "$e = $null; [void][System.Management.Automation.Language.Parser]::ParseFile('{}', [ref]$null, [ref]$e); exit $e.Count",
        file.display()
    );
    assert!(Command::new(pwsh).args(["-NoProfile", "-Command", &parse]).status().unwrap().success());
}

#[test]
fn bash_completes_commands_and_flags() {
    let Some(bash) = find("bash") else {
        println!("SKIPPED: bash_completes_commands_and_flags: bash is not installed");
        return;
    };
    let (_, script, _) = run(&mut link_cli(["completion", "bash"]));
    let completed = |words: &str| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _link_cli link-cli \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new(&bash).args(["--norc", "-c", &ask]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(completed("link-cli gat").contains("gateways"), "{}", completed("link-cli gat"));
    assert!(completed("link-cli gateways --clu").contains("--cluster-name"));
}
