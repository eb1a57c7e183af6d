//! What the user may do, asked of the API server.

use crate::{checks::pre::CREATED, cluster::Cluster, observe::installation::Answer};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use std::collections::BTreeMap;

/// For each resource that an installation creates, whether the user may.
pub async fn to_install(cluster: &Cluster) -> Answer<BTreeMap<String, bool>> {
    let api: Api<SelfSubjectAccessReview> = cluster.all();
    let mut rights = BTreeMap::new();
    for (group, resource, namespaced) in CREATED {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    verb: Some("create".to_owned()),
                    namespace: namespaced.then(|| cluster.namespace.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|e| format!("{:#}", cluster.explain("asking for rights", &e)))?;
        rights.insert(resource.to_owned(), answer.status.is_some_and(|status| status.allowed));
    }
    Ok(rights)
}
