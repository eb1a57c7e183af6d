//! Each account has exactly the rights that `RIGHTS.md` lists: every verb on every resource is asked of the API server,
//! with the account's own token.

use crate::support::{SOON, cluster, list};
use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use linkspan_core::api::labels::{CONTROLLER, GATEWAY, NAMESPACE, REMOTE_ACCESS_ACCOUNT};
use linkspan_tests::{Need, have};
use serde_json::Value;
use std::collections::BTreeSet;

const TABLE: &str = include_str!("../../../link-cli/RIGHTS.md");

const VERBS: [&str; 13] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "approve",
    "sign",
    "bind",
    "escalate",
    "impersonate",
];

/// Group and resource of everything that is asked about, beside what the table names.
const RESOURCES: &str = "core/pods core/pods/log core/pods/exec core/pods/portforward core/services core/services/status \
    core/services/proxy core/endpoints core/secrets core/configmaps core/namespaces core/namespaces/finalize core/nodes \
    core/nodes/proxy core/serviceaccounts core/serviceaccounts/token core/events core/persistentvolumeclaims \
    core/replicationcontrollers core/users core/groups apps/deployments apps/deployments/scale apps/replicasets \
    apps/daemonsets apps/statefulsets batch/jobs discovery.k8s.io/endpointslices \
    certificates.k8s.io/certificatesigningrequests certificates.k8s.io/certificatesigningrequests/approval \
    certificates.k8s.io/certificatesigningrequests/status certificates.k8s.io/signers linkspan.dev/exportedservices \
    linkspan.dev/exportedservices/status multicluster.linkerd.io/links multicluster.linkerd.io/links/status \
    rbac.authorization.k8s.io/roles rbac.authorization.k8s.io/clusterroles rbac.authorization.k8s.io/rolebindings \
    rbac.authorization.k8s.io/clusterrolebindings coordination.k8s.io/leases \
    admissionregistration.k8s.io/validatingadmissionpolicies \
    admissionregistration.k8s.io/validatingadmissionpolicybindings \
    admissionregistration.k8s.io/validatingwebhookconfigurations \
    apiextensions.k8s.io/customresourcedefinitions apiregistration.k8s.io/apiservices \
    authentication.k8s.io/tokenreviews authentication.k8s.io/selfsubjectreviews \
    authorization.k8s.io/subjectaccessreviews authorization.k8s.io/selfsubjectaccessreviews \
    authorization.k8s.io/selfsubjectrulesreviews networking.k8s.io/networkpolicies networking.k8s.io/ingresses \
    policy/poddisruptionbudgets split.smi-spec.io/trafficsplits specs.smi-spec.io/httproutegroups \
    gateway.networking.k8s.io/httproutes";

/// What Kubernetes lets every account do.
const EVERYBODY: [(&str, &str); 3] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// One line of the table.
struct Row {
    account: String,
    everywhere: bool,
    group: String,
    resource: String,
    names: Option<Vec<String>>,
    verbs: Vec<String>,
}

/// Reads the table; its placeholders mean Link `west` and the account that every installation has.
fn rows() -> Vec<Row> {
    let text = TABLE.replace("<link>", "west").replace('`', "");
    let lines = text.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let words = |cell: &str| cell.split(',').map(|word| word.trim().to_owned()).collect::<Vec<_>>();
    lines
        .map(|line| {
            let cells: Vec<String> = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().replace("<account>", REMOTE_ACCESS_ACCOUNT))
                .collect();
            let [account, place, group, resource, names, verbs] = cells.as_slice() else { panic!("{line}") };
            Row {
                account: account.clone(),
                everywhere: place == "everywhere",
                group: if group == "core" { String::new() } else { group.clone() },
                resource: resource.clone(),
                names: (names != "any").then(|| words(names)),
                verbs: words(verbs),
            }
        })
        .collect()
}

/// One question, and whether the table allows it.
#[derive(Clone, Debug)]
struct Question {
    group: String,
    resource: String,
    verb: &'static str,
    namespace: &'static str,
    name: String,
}

impl Question {
    fn allowed_by(&self, row: &Row) -> bool {
        row.group == self.group
            && row.resource == self.resource
            && row.verbs.iter().any(|verb| verb == self.verb)
            && (row.everywhere || self.namespace == NAMESPACE)
            && row.names.as_ref().is_none_or(|names| names.contains(&self.name))
    }

    fn allowed_to_everybody(&self) -> bool {
        self.verb == "create" && EVERYBODY.contains(&(self.group.as_str(), self.resource.as_str()))
    }

    async fn ask(&self, client: &Client) -> kube::Result<bool> {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (self.resource.as_str(), None),
        };
        let attributes = ResourceAttributes {
            group: Some(self.group.clone()),
            resource: Some(resource.to_owned()),
            subresource,
            verb: Some(self.verb.to_owned()),
            namespace: Some(self.namespace.to_owned()),
            name: Some(self.name.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

/// Every verb on every resource, in the whole cluster, our namespace and another one, without a name, under each name
/// that the table knows for the resource, and under one it does not know.
fn questions(rows: &[Row]) -> Vec<Question> {
    let listed = RESOURCES.split_whitespace().map(|text| {
        let (group, resource) = text.split_once('/').unwrap();
        (if group == "core" { "" } else { group }.to_owned(), resource.to_owned())
    });
    let resources: BTreeSet<(String, String)> =
        listed.chain(rows.iter().map(|row| (row.group.clone(), row.resource.clone()))).collect();
    let mut questions = Vec::new();
    for (group, resource) in resources {
        let of_it = rows.iter().filter(|row| row.group == group && row.resource == resource);
        let mut names: BTreeSet<String> =
            of_it.flat_map(|row| row.names.clone().unwrap_or_default()).collect();
        if !names.is_empty() {
            names.insert("another".to_owned());
        }
        names.insert(String::new());
        for name in names {
            for namespace in ["", NAMESPACE, "default"] {
                for verb in VERBS {
                    let (group, resource, name) = (group.clone(), resource.clone(), name.clone());
                    questions.push(Question { group, resource, verb, namespace, name });
                }
            }
        }
    }
    questions
}

#[test]
fn the_table_is_read() {
    let rows = rows();
    let of = |account: &str| rows.iter().filter(|row| row.account == account).count();
    assert!(of(GATEWAY) >= 7 && of(CONTROLLER) >= 18, "{} {}", of(GATEWAY), of(CONTROLLER));
    let [csr, exports, bundle, service, token] =
        rows.iter().filter(|row| row.account == REMOTE_ACCESS_ACCOUNT).collect::<Vec<_>>()[..]
    else {
        panic!("a linked cluster may do five things")
    };
    assert_eq!(
        (csr.resource.as_str(), csr.verbs.join(" ")),
        ("certificatesigningrequests", "create get".into())
    );
    assert_eq!(exports.names, None);
    assert_eq!((bundle.resource.as_str(), bundle.names.as_deref().unwrap().len()), ("configmaps", 1));
    assert_eq!((service.resource.as_str(), service.names.as_deref().unwrap().len()), ("services", 1));
    assert_eq!((token.resource.as_str(), token.verbs.join(" ")), ("serviceaccounts/token", "create".into()));
}

#[tokio::test]
async fn each_account_may_do_what_the_table_says_and_nothing_else() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let west = cluster("west").await;
    // What a link brings to its importer, of all that `link` prints, are the rights for its objects.
    let role: Value = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": NAMESPACE, "name": "linkspan-ca-bundle"},
        "data": {"ca-bundle.crt": "x", "trust-domain": "x.linkspan"},
    });
    west.server.apply(&list(&[role])).await.unwrap();
    let url = west.server.url();
    let link = west.link_cli(["link", "--cluster-name", "west", "--api-server-address", &url]).await.unwrap();
    let of_link = crate::support::documents(&link).into_iter();
    let of_link: Vec<_> =
        of_link.filter(|o| ["Role", "RoleBinding"].iter().any(|kind| o["kind"] == *kind)).collect();
    west.server.apply(&list(&of_link)).await.unwrap();

    let rows = rows();
    let questions = questions(&rows);
    for account in [GATEWAY, CONTROLLER, REMOTE_ACCESS_ACCOUNT] {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.account == account).collect();
        let client = west.server.client_as(NAMESPACE, account).await.unwrap();
        let ask = |question: Question| {
            let client = client.clone();
            async move { (question.ask(&client).await, question) }
        };
        let answers = stream::iter(questions.clone()).map(ask).buffer_unordered(16).collect::<Vec<_>>();
        let answers = tokio::time::timeout(SOON * 5, answers).await.expect("the API server is too slow");
        let (mut wrong, mut allowed) = (Vec::new(), 0);
        for (answer, question) in answers {
            let answer = answer.unwrap();
            let wanted = rows.iter().any(|row| question.allowed_by(row)) || question.allowed_to_everybody();
            allowed += usize::from(answer);
            if answer != wanted {
                wrong.push(format!("{question:?}: the API server says {answer}"));
            }
        }
        assert!(wrong.is_empty(), "{account}, {} of {}:\n{}", wrong.len(), questions.len(), wrong.join("\n"));
        println!("{account}: {} questions, {allowed} allowed, all as documented", questions.len());
    }
}
