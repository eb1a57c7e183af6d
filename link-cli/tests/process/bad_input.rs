//! Whatever a user does wrong ends in one sentence and an exit code, never in a panic.

use crate::support::{Folder, link_cli, one_sentence, run};
use std::{
    fs::OpenOptions,
    io::Read,
    net::TcpListener,
    process::{Command, Stdio},
};

#[test]
fn an_unknown_context_is_told_with_the_flag_that_mends_it() {
    let folder = Folder::new();
    let kubeconfig = folder.kubeconfig("https://127.0.0.1:1");
    let at = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--context", "nowhere"];
    for command in ["install", "upgrade", "uninstall", "check", "gateways", "services"] {
        let told = one_sentence(link_cli(at).arg(command));
        assert!(told.contains("nowhere") && told.contains("--context"), "{command}: {told}");
    }
    let none = one_sentence(&mut link_cli(["gateways"]));
    assert!(none.contains("/nowhere/kubeconfig") && none.contains("KUBECONFIG"), "{none}");
    let broken = folder.write("broken", "clusters: 7\n");
    let told = one_sentence(&mut link_cli(["--kubeconfig", broken.to_str().unwrap(), "gateways"]));
    assert!(told.contains("kubeconfig cannot be used"), "{told}");
}

#[test]
fn an_api_that_cannot_be_reached_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let folder = Folder::new();
    let kubeconfig = folder.kubeconfig(&server);
    let at = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    for command in [
        "install",
        "upgrade",
        "uninstall",
        "unlink --cluster-name west",
        "link --cluster-name west",
        "allow --service-account-name a",
        "allow list",
        "allow revoke --service-account-name a",
        "export my-api",
        "unexport my-api",
        "gateways",
        "services",
        "diagnostics endpoints my-api",
        "diagnostics gather",
        "diagnostics proxy-metrics",
    ] {
        let told = one_sentence(link_cli(at).args(command.split(' ')));
        assert!(told.contains(&server) && told.contains("check that"), "{command}: {told}");
    }
    // A check tells it as what it found.
    let (code, stdout, _) = run(link_cli(at).arg("check"));
    assert_eq!(code, Some(1));
    assert!(stdout.contains("× can query the Kubernetes API") && stdout.contains("hint: "), "{stdout}");
    // The version of the tool is known all the same.
    let (code, stdout, stderr) = run(link_cli(at).arg("version"));
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("link-cli: ") && stderr.contains("unknown"), "{stdout}{stderr}");
}

#[test]
fn names_that_no_link_can_have_are_refused_before_anything_is_done() {
    let long = "a".repeat(60);
    for (name, commands) in
        [("west.example", &["link", "unlink"][..]), ("West", &["link", "unlink"]), (&long, &["link"])]
    {
        for command in commands {
            let (code, stdout, stderr) = run(link_cli([command]).args(["--cluster-name", name]));
            assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
            assert!(stderr.contains(name) && !stderr.contains("panicked"), "{stderr}");
        }
    }
    let (_, _, stderr) = run(&mut link_cli(["link", "--cluster-name", &long]));
    assert!(stderr.contains("60 characters") && stderr.contains("at most 50"), "{stderr}");
    let (_, _, stderr) = run(&mut link_cli(["link", "--cluster-name", "west.example"]));
    assert!(stderr.contains("no dots"), "{stderr}");
}

#[test]
fn an_output_that_cannot_be_written_is_told() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let print = ["install", "--ignore-cluster"];
    for command in [&print[..], &["completion", "bash"], &["version", "--client"]] {
        let mut command = link_cli(command);
        let output =
            command.stdout(full()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.starts_with("error: the output cannot be written: ") && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    // Nobody is left to hear of a broken stderr.
    let both = link_cli(print).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(both.code(), Some(1));
}

#[test]
fn a_reader_that_goes_away_is_told_without_panic() {
    let mut child = link_cli(["install", "--ignore-cluster"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // More is written than a pipe holds only where the pipe is closed at once.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("its reader has gone") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn values_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    let wrong = folder.write("values.yaml", "gatway: {}\n");
    let file = wrong.to_str().unwrap();
    for (flags, told) in [
        (&["--set", "gateway.port=0"][..], "gateway.port"),
        (&["-f", file], "gatway"),
        (&["-f", "/nowhere/values.yaml"], "/nowhere/values.yaml"),
        (&["--set", "ha"], "<name>=<value>"),
    ] {
        let sentence = one_sentence(link_cli(["install", "--ignore-cluster"]).args(flags));
        assert!(sentence.contains(told), "{sentence}");
    }
}

#[test]
fn ctrl_c_ends_a_wait_with_a_sentence() {
    // Accepts connections, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    let kubeconfig = folder.kubeconfig(&format!("http://{}", listener.local_addr().unwrap()));
    let mut command = link_cli(["--kubeconfig", kubeconfig.to_str().unwrap(), "gateways"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (_asked, _) = listener.accept().unwrap();
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert_eq!(stderr, "error: interrupted; run the command again to go on\n");
}

#[test]
fn an_api_that_never_answers_is_given_up_after_the_request_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    let kubeconfig = folder.kubeconfig(&format!("http://{}", listener.local_addr().unwrap()));
    let at = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--request-timeout", "1s"];
    let told = one_sentence(link_cli(at).arg("services"));
    assert!(told.contains("does not answer"), "{told}");
}

#[test]
fn a_group_is_acted_as_only_together_with_a_user() {
    let folder = Folder::new();
    let kubeconfig = folder.kubeconfig("https://127.0.0.1:1");
    let told = one_sentence(&mut link_cli([
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "gateways",
        "--as-group",
        "a",
    ]));
    assert!(told.contains("without --as"), "{told}");
}

#[test]
fn two_runs_print_the_same() {
    let print = || run(link_cli(["install", "--ignore-cluster", "--ha"]).env("NO_COLOR", "1")).1;
    assert_eq!(print(), print());
    assert!(!print().contains('\u{1b}'));
    let (_, help, _) = run(&mut link_cli(["--help"]));
    assert!(!help.contains('\u{1b}'), "no colours where nobody sees them");
    for word in ["Exit codes:", "130", "NO_COLOR"] {
        assert!(help.contains(word), "{word}");
    }
}
