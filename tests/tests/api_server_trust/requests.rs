//! Attacks on the signer, by real accounts on a real API server: what the admission policy stops, what the signer
//! denies, and that a person's approval changes nothing.

use crate::support::{SOON, cluster, list};
use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
        core::v1::{Namespace, ServiceAccount},
    },
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use linkspan_core::api::labels::{NAMESPACE, REMOTE_ACCESS_ACCOUNT, SIGNER};
use linkspan_tests::{Installation, Need, eventually, have};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A second account for linked clusters, and one that is none.
const PARTNER: &str = "partner";
const PLAIN: &str = "plain";

/// A PKCS#10 request (PEM) for these URIs, changed by `change`.
fn pkcs10(uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap().into_bytes()
}

fn object(name: &str, request: Vec<u8>) -> CertificateSigningRequest {
    let spec = CertificateSigningRequestSpec {
        request: ByteString(request),
        signer_name: SIGNER.to_owned(),
        usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
        ..CertificateSigningRequestSpec::default()
    };
    let mut object = CertificateSigningRequest { spec, ..CertificateSigningRequest::default() };
    object.metadata.name = Some(name.to_owned());
    object
}

/// An attack: its name, who makes it, what is sent, and a part of the refusal.
struct Attack {
    name: String,
    account: &'static str,
    object: CertificateSigningRequest,
    refusal: &'static str,
}

/// Everything that an account might try, under names that the admission policy allows it. `round` keeps names apart.
fn attacks(domain: &str, round: &str) -> Vec<Attack> {
    let uri = |account: &str| format!("spiffe://{domain}/ns/{NAMESPACE}/sa/{account}");
    let (own, partner) = (uri(REMOTE_ACCESS_ACCOUNT), uri(PARTNER));
    let elsewhere = format!("spiffe://{domain}/ns/default/sa/{REMOTE_ACCESS_ACCOUNT}");
    let forged = own.replacen(domain, "0b7f3c9e.linkspan", 1);
    let exactly = "may have exactly";
    let mut all: Vec<(&str, &'static str, Vec<u8>, &'static str)> = vec![
        ("other-account", REMOTE_ACCESS_ACCOUNT, pkcs10(&[&partner], |_| {}), exactly),
        ("gateway-itself", REMOTE_ACCESS_ACCOUNT, pkcs10(&[&uri("linkspan-gateway")], |_| {}), exactly),
        ("other-namespace", REMOTE_ACCESS_ACCOUNT, pkcs10(&[&elsewhere], |_| {}), exactly),
        ("forged-domain", REMOTE_ACCESS_ACCOUNT, pkcs10(&[&forged], |_| {}), exactly),
        ("two-names", REMOTE_ACCESS_ACCOUNT, pkcs10(&[&own, &partner], |_| {}), exactly),
        ("no-name", REMOTE_ACCESS_ACCOUNT, pkcs10(&[], |_| {}), exactly),
        ("replay", PARTNER, pkcs10(&[&own], |_| {}), exactly),
        ("no-link-account", PLAIN, pkcs10(&[&uri(PLAIN)], |_| {}), "does not carry the label"),
    ];
    let dns = |p: &mut CertificateParams| {
        p.subject_alt_names.push(SanType::DnsName("kubernetes.default".try_into().unwrap()));
    };
    all.push(("more-names", REMOTE_ACCESS_ACCOUNT, pkcs10(&[&own], dns), exactly));
    let ca = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    all.push(("ca-bit", REMOTE_ACCESS_ACCOUNT, pkcs10(&[&own], ca), "the right to sign certificates"));
    let server =
        |p: &mut CertificateParams| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    all.push(("server", REMOTE_ACCESS_ACCOUNT, pkcs10(&[&own], server), "extended usage beside client auth"));
    let weak = include_bytes!("../../../mirror-controller/src/issuer/review/testdata/rsa-1024.csr").to_vec();
    all.push(("weak-key", REMOTE_ACCESS_ACCOUNT, weak, "RSA with 1024 bits"));
    let mut attacks: Vec<Attack> = all
        .into_iter()
        .map(|(name, account, request, refusal)| {
            let object = object(&format!("linkspan-{account}-{round}-{name}"), request);
            Attack { name: name.to_owned(), account, object, refusal }
        })
        .collect();
    let mut usages =
        object(&format!("linkspan-{REMOTE_ACCESS_ACCOUNT}-{round}-usages"), pkcs10(&[&own], |_| {}));
    usages.spec.usages = Some(vec!["client auth".to_owned(), "server auth".to_owned()]);
    let (name, account, refusal) = ("usages".to_owned(), REMOTE_ACCESS_ACCOUNT, "were asked for");
    attacks.push(Attack { name, account, object: usages, refusal });
    attacks
}

struct West {
    installation: Installation,
    admin: Client,
    domain: String,
}

impl West {
    async fn new() -> Self {
        let mut installation = cluster("west").await;
        installation.start_controller().await.unwrap();
        let partner = installation.link_cli(["allow", "--service-account-name", PARTNER]).await.unwrap();
        installation.server.apply(&partner).await.unwrap();
        let plain = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                           "metadata": {"namespace": NAMESPACE, "name": PLAIN}});
        let binding = |account: &str, namespace: &str| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                   "metadata": {"name": format!("requests-of-{namespace}-{account}")},
                   "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "linkspan-remote-access"},
                   "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": account}]})
        };
        let more = list(&[plain, binding(PLAIN, NAMESPACE), binding("default", "default")]);
        installation.server.apply(&more).await.unwrap();
        let admin = installation.server.admin().await.unwrap();
        let system = Api::<Namespace>::all(admin.clone()).get("kube-system").await.unwrap();
        let domain = format!("{}.linkspan", system.uid().unwrap());
        Self { installation, admin, domain }
    }

    async fn requests_of(&self, namespace: &str, account: &str) -> Api<CertificateSigningRequest> {
        Api::all(self.installation.server.client_as(namespace, account).await.unwrap())
    }

    /// What the signer made of a request: type and message of the condition that settles it.
    async fn settled(&self, name: &str) -> (String, String) {
        let requests: Api<CertificateSigningRequest> = Api::all(self.admin.clone());
        eventually(SOON, format!("request {name} to be settled"), async || {
            let status = requests.get(name).await?.status.unwrap_or_default();
            ensure!(status.certificate.is_none(), "{name} has a certificate");
            let found =
                status.conditions.iter().flatten().find(|c| c.type_ == "Denied" || c.type_ == "Failed");
            let found = found.with_context(|| format!("{:?}", status.conditions))?;
            Ok((found.type_.clone(), found.message.clone().unwrap_or_default()))
        })
        .await
    }

    async fn signed(&self, name: &str) -> Vec<u8> {
        let requests: Api<CertificateSigningRequest> = Api::all(self.admin.clone());
        let pem = eventually(SOON, format!("request {name} to be signed"), async || {
            let status = requests.get(name).await?.status.unwrap_or_default();
            Ok(status.certificate.clone().with_context(|| format!("{:?}", status.conditions))?.0)
        })
        .await;
        x509_parser::pem::parse_x509_pem(&pem).unwrap().1.contents
    }

    async fn approve_by_hand(&self, name: &str) {
        let approve = ["certificate", "approve", name];
        self.installation.server.kubectl(approve).unwrap().run(SOON).await.unwrap().success().unwrap();
    }
}

async fn create(api: &Api<CertificateSigningRequest>, object: &CertificateSigningRequest) -> Result<String> {
    Ok(api.create(&PostParams::default(), object).await?.name_any())
}

#[tokio::test]
async fn a_link_account_gets_its_own_client_certificate_and_nothing_else() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let mut west = West::new().await;
    let own = format!("spiffe://{}/ns/{NAMESPACE}/sa/{REMOTE_ACCESS_ACCOUNT}", west.domain);
    let mine = west.requests_of(NAMESPACE, REMOTE_ACCESS_ACCOUNT).await;

    // The admission policy: signer and names.
    let honest = |name: &str| object(name, pkcs10(&[&own], |_| {}));
    let policy = async |object: &CertificateSigningRequest, said: &str| {
        let refused = eventually(SOON, "the admission policy to be in force", async || {
            // A policy that has just been made is in force a moment later.
            let mut trial = object.clone();
            trial.metadata.name = object.metadata.name.clone();
            let params = PostParams { dry_run: true, ..PostParams::default() };
            Ok(mine.create(&params, &trial).await.err().context("it is admitted")?.to_string())
        })
        .await;
        assert!(refused.contains(said), "{refused}");
    };
    let mut other_signer = honest(&format!("linkspan-{REMOTE_ACCESS_ACCOUNT}-s"));
    other_signer.spec.signer_name = "kubernetes.io/kube-apiserver-client".to_owned();
    policy(&other_signer, "may ask only signer linkspan.dev/gateway-client").await;
    policy(&honest(&format!("linkspan-{PARTNER}-x")), "are named linkspan-<account>-<any>").await;
    policy(&honest("my-request"), "are named linkspan-<account>-<any>").await;
    let mut generated = honest("x");
    generated.metadata.name = None;
    generated.metadata.generate_name = Some(format!("linkspan-{PARTNER}-"));
    policy(&generated, "are named linkspan-<account>-<any>").await;

    // The honest request passes, for as long as the signer allows.
    generated.metadata.generate_name = Some(format!("linkspan-{REMOTE_ACCESS_ACCOUNT}-"));
    for (asked, hours) in [(Some(i32::MAX), 24), (None, 24), (Some(3600), 1)] {
        generated.spec.expiration_seconds = asked;
        let name = create(&mine, &generated).await.unwrap();
        let der = west.signed(&name).await;
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let life =
            certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
        assert_eq!(life, hours * 3600 + 300, "asked for {asked:?}, backdated by five minutes");
        assert!(!certificate.is_ca());
    }

    // Everything else is denied with its reason, which whoever asked can read.
    for attack in attacks(&west.domain, "a") {
        let api = west.requests_of(NAMESPACE, attack.account).await;
        let name = create(&api, &attack.object).await.unwrap_or_else(|e| panic!("{}: {e:#}", attack.name));
        let (kind, message) = west.settled(&name).await;
        assert_eq!(kind, "Denied", "{}: {message}", attack.name);
        assert!(message.contains(attack.refusal), "{}: {message}", attack.name);
        let read = api.get(&name).await.unwrap().status.unwrap().conditions.unwrap();
        assert!(read.iter().any(|c| c.message.as_deref() == Some(message.as_str())), "{}", attack.name);
    }
    // Whoever else may create requests: the policy is not for them, the signer is.
    let elsewhere = west.requests_of("default", "default").await;
    let foreign = format!("linkspan-{REMOTE_ACCESS_ACCOUNT}-foreign");
    create(&elsewhere, &honest(&foreign)).await.unwrap();
    let admin = Api::all(west.admin.clone());
    let person = format!("linkspan-{REMOTE_ACCESS_ACCOUNT}-person");
    create(&admin, &honest(&person)).await.unwrap();
    for name in [foreign, person] {
        let (kind, message) = west.settled(&name).await;
        assert!(kind == "Denied" && message.contains("is no ServiceAccount of namespace"), "{message}");
    }

    // A person with all rights approves while the controller does not look: it is not signed all the same.
    west.installation.controller().unwrap().signal("STOP").unwrap();
    let attacks = attacks(&west.domain, "b");
    for attack in &attacks {
        let api = west.requests_of(NAMESPACE, attack.account).await;
        west.approve_by_hand(&create(&api, &attack.object).await.unwrap()).await;
    }
    // Another account under the same name is another account.
    let partners = west.requests_of(NAMESPACE, PARTNER).await;
    let uri = format!("spiffe://{}/ns/{NAMESPACE}/sa/{PARTNER}", west.domain);
    let honest = |name: &str| object(&format!("linkspan-{PARTNER}-{name}"), pkcs10(&[&uri], |_| {}));
    let before = create(&partners, &honest("before")).await.unwrap();
    west.approve_by_hand(&before).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(west.admin.clone(), NAMESPACE);
    accounts.delete(PARTNER, &kube::api::DeleteParams::default()).await.unwrap();
    let allow = ["allow", "--service-account-name", PARTNER, "--ignore-cluster"];
    let anew = west.installation.link_cli(allow).await.unwrap();
    west.installation.server.apply(&anew).await.unwrap();
    west.installation.controller().unwrap().signal("CONT").unwrap();
    for attack in &attacks {
        let (kind, message) = west.settled(&attack.object.name_any()).await;
        let refusal = if attack.account == PARTNER { "deleted or made anew" } else { attack.refusal };
        assert_eq!(kind, "Failed", "{}: {message}", attack.name);
        assert!(message.contains(refusal), "{}: {message}", attack.name);
    }
    let (kind, message) = west.settled(&before).await;
    assert!(kind == "Failed" && message.contains("deleted or made anew"), "{kind}: {message}");
    let partners = west.requests_of(NAMESPACE, PARTNER).await;
    west.signed(&create(&partners, &honest("after")).await.unwrap()).await;
}
