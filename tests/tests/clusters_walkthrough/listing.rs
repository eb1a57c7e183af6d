//! All objects of a cluster by name, to see that an installation leaves nothing behind.

use anyhow::Result;
use linkspan_tests::clusters::Cluster;
use std::{collections::BTreeSet, time::Duration};

/// `<kind>/<name>` with namespaces.
pub(crate) type Listing = BTreeSet<String>;

/// Time one listing may take.
const LOOK: Duration = Duration::from_secs(60);

/// Everything there is, but for Events (they outlive what they tell of) and what Kubernetes itself makes and drops
/// as nodes and API servers report.
pub(crate) async fn of(cluster: &Cluster) -> Result<Listing> {
    let kinds =
        cluster.kubectl(["api-resources", "--verbs=list", "-o", "name"]).run(LOOK).await?.success()?;
    let kinds: Vec<&str> = kinds.lines().filter(|k| !k.starts_with("events")).collect();
    let columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name";
    let all = cluster.kubectl(["get", &kinds.join(","), "-A", "--no-headers", "-o", columns]);
    let all = all.run(LOOK).await?.success()?;
    let lines = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(lines.filter(|line| !line.starts_with("Lease ")).collect())
}
