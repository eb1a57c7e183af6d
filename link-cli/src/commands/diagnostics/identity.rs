//! `diagnostics identity`: the certificates in use. Private keys are never read out of what holds them.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    observe::{
        certificates::{self, Certificate},
        health,
    },
    output::{self, Column, JsonForm, time_span},
};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use linkspan_core::{
    api::{
        credentials::{
            CA_BUNDLE, CA_BUNDLE_CONFIG_MAP, GATEWAY_TLS_SECRET, GATEWAY_TRUST_CONFIG_MAP, OWN_BUNDLE,
            SERVER_CERT, link_of_client_cert, link_of_peer_bundle,
        },
        names::link_bundle_config_map,
    },
    process::clock::Clock,
};
use serde_json::json;

/// Flags of `diagnostics identity`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east diagnostics identity
  link-cli --context east diagnostics identity -o json")]
pub(super) struct IdentityArgs {
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<JsonForm>,
}

/// One certificate, and what it is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    /// `own CA`, `gateway server`, `client of west`, `CA of west`.
    used_as: String,
    certificate: Certificate,
}

/// Runs it. What the user may not read is told on stderr. A certificate outside its time fails by the exit code.
///
/// # Errors
/// When a certificate cannot be read, or stdout not be written.
pub(super) async fn run(global: &Global, args: &IdentityArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let now = Clock::system().now();
    let mut rows = vec![];
    for (used_as, pem) in texts(&cluster).await {
        let found = certificates::read(&pem).map_err(|e| anyhow::anyhow!("{used_as}: {e}"))?;
        rows.extend(found.into_iter().map(|certificate| Row { used_as: used_as.clone(), certificate }));
    }
    if rows.is_empty() {
        output::note(&format!("no certificates in context {}: see `link-cli check`", cluster.context));
    }
    output::print(&render(&rows, now, args.output))?;
    let all_in_time = rows.iter().all(|row| state(&row.certificate, now) == State::Holds);
    Ok(if all_in_time { Outcome::Well } else { Outcome::FoundErrors })
}

/// All PEM texts with certificates that are in use here, and what each is used as.
async fn texts(cluster: &Cluster) -> Vec<(String, Vec<u8>)> {
    let mut texts = vec![];
    let map = async |name: &str| match cluster.get(&cluster.ours::<ConfigMap>(), name, "ConfigMap").await {
        Ok(found) => found.and_then(|map| map.data).unwrap_or_default(),
        Err(e) => {
            output::note(&format!("warning: {e:#}"));
            std::collections::BTreeMap::default()
        }
    };
    if let Some(pem) = map(CA_BUNDLE_CONFIG_MAP).await.remove(CA_BUNDLE) {
        texts.push(("own CA".to_owned(), pem.into_bytes()));
    }
    match cluster.get(&cluster.ours::<Secret>(), GATEWAY_TLS_SECRET, "Secret").await {
        Ok(secret) => {
            for (key, value) in secret.and_then(|secret| secret.data).unwrap_or_default() {
                if key == SERVER_CERT {
                    texts.push(("gateway server".to_owned(), value.0));
                } else if let Some(link) = link_of_client_cert(&key) {
                    texts.push((format!("client of {link}"), value.0));
                }
            }
        }
        Err(e) => output::note(&format!("warning: {e:#}")),
    }
    let mut trusted = map(GATEWAY_TRUST_CONFIG_MAP).await;
    trusted.remove(OWN_BUNDLE);
    for (key, pem) in trusted {
        if let Some(link) = link_of_peer_bundle(&key) {
            texts.push((format!("CA of {link}"), pem.into_bytes()));
        }
    }
    for link in health::list(cluster).await.unwrap_or_default() {
        let name = link.metadata.name.unwrap_or_default();
        let known = texts.iter().any(|(used_as, _)| *used_as == format!("CA of {name}"));
        if let Some(pem) = map(&link_bundle_config_map(&name)).await.remove(CA_BUNDLE).filter(|_| !known) {
            texts.push((format!("CA of {name} (as linked)"), pem.into_bytes()));
        }
    }
    texts
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NotYet,
    Holds,
    Ended,
}

fn state(certificate: &Certificate, now: Timestamp) -> State {
    if now < certificate.not_before {
        State::NotYet
    } else if now >= certificate.not_after {
        State::Ended
    } else {
        State::Holds
    }
}

fn render(rows: &[Row], now: Timestamp, form: Option<JsonForm>) -> String {
    if form == Some(JsonForm::Json) {
        let row = |row: &Row| {
            let certificate = &row.certificate;
            json!({
                "usedAs": row.used_as,
                "subject": certificate.subject,
                "issuer": certificate.issuer,
                "serial": certificate.serial,
                "notBefore": format!("{:.0}", certificate.not_before),
                "notAfter": format!("{:.0}", certificate.not_after),
            })
        };
        return output::json(&rows.iter().map(row).collect::<Vec<_>>());
    }
    let columns = ["USED_AS", "ENDS", "SERIAL", "SUBJECT", "ISSUER"].map(|head| Column {
        head,
        width: 0,
        right: false,
    });
    let cells = |row: &Row| {
        let certificate = &row.certificate;
        let ends = match state(certificate, now) {
            State::NotYet => format!("begins in {}", time_span(certificate.not_before.duration_since(now))),
            State::Holds => format!("in {}", time_span(certificate.not_after.duration_since(now))),
            State::Ended => format!("{} ago", time_span(now.duration_since(certificate.not_after))),
        };
        vec![
            row.used_as.clone(),
            ends,
            certificate.serial.clone(),
            certificate.subject.clone(),
            certificate.issuer.clone(),
        ]
    };
    output::table(&columns, &rows.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_and_what_has_not_begun_is_told() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let certificate = Certificate {
            subject: "spiffe://u.linkspan/ns/linkspan/sa/x".into(),
            issuer: "CN=u.linkspan".into(),
            serial: "0aff".into(),
            not_before: time("2026-01-01T00:00:00Z"),
            not_after: time("2026-01-02T00:00:00Z"),
        };
        let rows = [Row { used_as: "client of west".into(), certificate }];
        let ends = |now: &str| render(&rows, time(now), None).lines().nth(1).unwrap().to_owned();
        assert!(ends("2026-01-01T23:00:00Z").starts_with("client of west  in 1h  0aff"));
        assert!(ends("2026-01-02T00:05:00Z").contains("5m ago"));
        assert!(ends("2025-12-31T23:59:30Z").contains("begins in 30s"));
        assert!(
            render(&rows, time("2026-01-01T00:00:00Z"), Some(JsonForm::Json))
                .contains("\"serial\": \"0aff\"")
        );
    }
}
