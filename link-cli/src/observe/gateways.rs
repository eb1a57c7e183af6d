//! What each gateway pod of this cluster says of the links, its ports and its credentials.

use crate::{
    cluster::Cluster,
    manifests::workloads::GATEWAY_COMPONENT,
    observe::pods::{self, Asked, OurPod},
};
use futures::future::join_all;
use linkspan_core::api::gateway_report::{Event, LinkHealth, UnboundPort};
use serde_json::Value;
use std::collections::BTreeMap;

/// One gateway pod, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayPod {
    /// The pod.
    pub pod: OurPod,
    /// What it says, or why it says nothing.
    pub said: Result<Said, String>,
}

/// What a gateway pod says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Each link as this pod sees it.
    pub links: BTreeMap<String, LinkHealth>,
    /// Mirrors' ports that it could not bind.
    pub unbound: Vec<UnboundPort>,
    /// Slices that claim a port which another one has.
    pub conflicts: Vec<String>,
    /// Credentials that it cannot use.
    pub problems: Vec<String>,
}

/// All gateway pods that run; `None` where the user may not ask them.
pub async fn look(cluster: &Cluster) -> Option<Vec<GatewayPod>> {
    let pods = pods::list(cluster, GATEWAY_COMPONENT).await.ok()?;
    let asked = join_all(pods.into_iter().filter(|pod| pod.running).map(|pod| async {
        let (links, config) =
            tokio::join!(pods::ask(cluster, &pod.name, "/links"), pods::ask(cluster, &pod.name, "/config"));
        let said = match (links, config) {
            (Asked::NotAllowed, _) => return None,
            (Asked::Silent(why), _) => Err(why),
            (Asked::Answer(links), Asked::Answer(config)) => read(&links, &config),
            (Asked::Answer(links), _) => read(&links, "{}"),
        };
        Some(GatewayPod { pod, said })
    }));
    asked.await.into_iter().collect()
}

fn read(links: &str, config: &str) -> Result<Said, String> {
    let wrong = |e: serde_json::Error| format!("its answer cannot be read: {e}");
    let mut said = Said::default();
    for line in links.lines() {
        match serde_json::from_str(line).map_err(wrong)? {
            Event::State { links, .. } => said.links = links,
            Event::Ports { failed, .. } => said.unbound = failed,
            Event::Heartbeat {} => {}
        }
    }
    let config: Value = serde_json::from_str(config).map_err(wrong)?;
    said.conflicts = texts(&config["portConflicts"]);
    said.problems = texts(&config["problems"]);
    Ok(said)
}

/// A list, or the values of a map with their keys, as texts.
fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("{key}: {}", text(value))).collect()
        }
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answers_of_a_pod_are_read() {
        let links = concat!(
            r#"{"event":"state","draining":false,"links":{"west":{"alive":false,"reason":"refused"}}}"#,
            "\n",
            r#"{"event":"ports","bound":[10000],"failed":[{"port":10001,"error":"in use"}]}"#,
            "\n"
        );
        let config = r#"{"portConflicts":["10000 twice"],"problems":{"west":"expired"}}"#;
        let said = read(links, config).unwrap();
        assert_eq!(said.links["west"].alive, Some(false));
        assert_eq!(
            (said.unbound[0].port, said.conflicts, said.problems),
            (10001, vec!["10000 twice".to_owned()], vec!["west: expired".to_owned()])
        );
        assert!(read("<html>", "{}").is_err());
    }
}
