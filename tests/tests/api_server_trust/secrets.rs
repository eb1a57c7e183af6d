//! That logs hold no secret: which parts of a secret text would give it away.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Pieces of a secret (a token, or PEM), any of which in a log betrays it: as it is, and as an API server sends it.
pub(crate) fn traces(secret: &str) -> Vec<String> {
    let encoded = STANDARD.encode(secret);
    let middle = encoded.len() / 2;
    let mut traces = vec![encoded[middle..(middle + 40).min(encoded.len())].to_owned()];
    if secret.starts_with("-----") {
        traces.extend(
            secret.lines().filter(|line| !line.starts_with('-') && line.len() >= 16).map(str::to_owned),
        );
    } else {
        // Head and claims of a token are no secret; its signature is.
        traces.extend(secret.rsplit('.').next().map(str::to_owned));
    }
    traces
}

/// A line of `log` that holds any of `secrets`, or any private key.
fn betrayed<'a>(log: &'a str, secrets: &[String]) -> Option<&'a str> {
    let traces: Vec<String> = secrets.iter().flat_map(|secret| traces(secret)).collect();
    let gives_away =
        |line: &str| line.contains("PRIVATE KEY") || traces.iter().any(|trace| line.contains(trace));
    log.lines().find(|line| gives_away(line))
}

/// Fails when `log` of `who` holds any of `secrets`.
pub(crate) fn assert_none_in(log: &str, who: &str, secrets: &[String]) {
    assert!(log.lines().count() > 20, "{who} wrote next to nothing");
    if let Some(line) = betrayed(log, secrets) {
        panic!("a log of {who} holds a secret, in a line that begins with {line:.150}");
    }
}

#[test]
fn a_secret_in_a_log_is_found() {
    let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEH\nBG0wawIBAQQg\n-----END PRIVATE KEY-----\n";
    let caught = |line: &str, secret: &str| {
        betrayed(&format!("all\n{line}\nis well\n"), &[secret.to_owned()]) == Some(line)
    };
    assert!(caught("key: MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEH", key));
    assert!(caught(&format!("body {}", STANDARD.encode(key)), key));
    assert!(caught("-----BEGIN EC PRIVATE KEY-----", "x"));
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLXRoYXQtbm9ib2R5LWtub3dz";
    assert!(caught(&format!("authorization: Bearer {token}"), token));
    assert!(!caught("account eyJhbGciOiJFUzI1NiJ9 is fine", token));
}
