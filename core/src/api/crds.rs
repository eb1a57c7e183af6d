//! The CustomResourceDefinitions that an installation brings, made from the types.

use crate::api::{
    exported_service::ExportedService,
    link::Link,
    route_group::HTTPRouteGroup,
    traffic_split::{TrafficSplit, VERSIONS},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Label on our definitions: `install` refuses where a definition of the same name lacks it.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "linkspan");

/// All definitions, in the order in which they are applied.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    marked(vec![ExportedService::crd(), link_definition()])
}

/// SMI's definitions: they are nobody's own, and one that a cluster has already is left as it is.
pub fn smi_definitions() -> Vec<CustomResourceDefinition> {
    marked(vec![split_definition(), HTTPRouteGroup::crd()])
}

fn marked(mut all: Vec<CustomResourceDefinition>) -> Vec<CustomResourceDefinition> {
    for crd in &mut all {
        crd.metadata.labels.get_or_insert_default().insert(PART_OF.0.to_owned(), PART_OF.1.to_owned());
    }
    all
}

/// The TrafficSplit's definition: four served versions of one schema, unconverted; the newest is stored.
fn split_definition() -> CustomResourceDefinition {
    let mut crd = TrafficSplit::crd();
    let newest = crd.spec.versions.remove(0);
    for name in VERSIONS.iter().rev() {
        let mut version = newest.clone();
        version.storage = version.name == *name;
        version.name = (*name).to_owned();
        crd.spec.versions.push(version);
    }
    crd
}

/// The Link's definition: three served versions of one schema, as Linkerd's; only the newest is stored.
fn link_definition() -> CustomResourceDefinition {
    let mut crd = Link::crd();
    let newest = crd.spec.versions.remove(0);
    for name in ["v1alpha1", "v1alpha2"] {
        let mut version = newest.clone();
        version.name = name.to_owned();
        version.storage = false;
        crd.spec.versions.push(version);
    }
    crd.spec.versions.push(newest);
    crd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_served_in_linkerds_versions_and_stored_in_one() {
        let crd = link_definition();
        let versions: Vec<_> =
            crd.spec.versions.iter().map(|v| (v.name.as_str(), v.served, v.storage)).collect();
        assert_eq!(
            versions,
            [("v1alpha1", true, false), ("v1alpha2", true, false), ("v1alpha3", true, true)]
        );
        assert_eq!(crd.metadata.name.as_deref(), Some("links.multicluster.linkerd.io"));
    }
}
