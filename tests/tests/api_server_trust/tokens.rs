//! Tokens and certificates of a link: when they end, who renews them, and what is said when that does not work. All with
//! logs as verbose as they get, which hold no secret.

use crate::{
    secrets::assert_none_in,
    support::{
        SOON, cluster, condition, documents, link_output, list, secret, secret_texts, token_in, token_of,
        with_token,
    },
};
use anyhow::{Context, ensure};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use linkspan_core::api::{
    credentials::{CLIENT_KEY, GATEWAY_TLS_SECRET, KUBECONFIG},
    labels::{NAMESPACE, REMOTE_ACCESS_ACCOUNT},
    link::Link,
};
use linkspan_tests::{Need, api_server::claims, eventually, have};
use serde_json::json;

const VALID: &str = "CredentialsValid";
const AGAIN: &str = "link-cli --context <target cluster> link --cluster-name west | kubectl apply -f -";

#[tokio::test]
async fn tokens_and_certificates_are_renewed_and_what_does_not_work_is_told_with_its_mend() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let (mut east, mut west) = tokio::join!(cluster("east"), cluster("west"));
    west.start_controller_with(&["--log-level", "trace,kube_client=trace"]).await.unwrap();
    east.start_controller_with(&["--log-level", "trace,kube_client=trace"]).await.unwrap();
    let (in_east, in_west) = (east.server.admin().await.unwrap(), west.server.admin().await.unwrap());
    let mut secrets = Vec::new();

    // The output says until when it can be applied, and is applied too late.
    let output = link_output(&west, &["--token-lifetime", "1h"]).await;
    let first = output.lines().next().unwrap();
    assert!(
        first.starts_with("# Link west: apply this until ") && first.contains("its token ends"),
        "{first}"
    );
    let given = claims(&token_of(&output)).unwrap();
    assert_eq!(given["exp"].as_i64().unwrap() - given["iat"].as_i64().unwrap(), 3600);
    let late = west.server.token_between(NAMESPACE, REMOTE_ACCESS_ACCOUNT, -7200, -60).await.unwrap();
    let late = with_token(&output, &late);
    // Without the right to read them, which the output brings along, that is what is said.
    let without = documents(&late).remove(0)["items"].as_array().unwrap().clone();
    let without: Vec<_> =
        without.into_iter().filter(|o| o["kind"] != "Role" && o["kind"] != "RoleBinding").collect();
    east.server.apply(&list(&without)).await.unwrap();
    let told = condition(&in_east, VALID, "Unknown", "SecretUnreadable").await;
    assert!(told.contains("cannot list resource \"secrets\"") && told.contains(AGAIN), "{told}");
    east.server.apply(&late).await.unwrap();
    let told = condition(&in_east, VALID, "False", "TokenExpired").await;
    assert!(told.contains("ended at ") && told.ends_with(&format!("run `{AGAIN}`")), "{told}");

    // A token past two thirds of its life is renewed at once, into a Secret of the controller's own.
    let old = west.server.token_between(NAMESPACE, REMOTE_ACCESS_ACCOUNT, -3000, 600).await.unwrap();
    east.server.apply(&with_token(&output, &old)).await.unwrap();
    condition(&in_east, VALID, "True", "Valid").await;
    let renewed = eventually(SOON, "a renewed token", async || {
        Ok(token_in(&secret(&in_east, "cluster-credentials-west-live").await?[KUBECONFIG]))
    })
    .await;
    let (old_claims, new_claims) = (claims(&old).unwrap(), claims(&renewed).unwrap());
    assert!(new_claims["iat"].as_i64() > old_claims["iat"].as_i64());
    assert_eq!(new_claims["exp"].as_i64().unwrap() - new_claims["iat"].as_i64().unwrap(), 24 * 3600);
    assert_eq!(new_claims["sub"], old_claims["sub"]);
    let given = secret(&in_east, "cluster-credentials-west").await.unwrap();
    assert_eq!(token_in(&given[KUBECONFIG]), old, "what `link` wrote is the user's");
    let links: Api<Link> = Api::namespaced(in_east.clone(), NAMESPACE);
    let ends = new_claims["exp"].as_i64().unwrap();
    eventually(SOON, "the renewed token's end in the status", async || {
        let status = links.get("west").await?.status.context("no status")?;
        let told = status.token_expires_at.context("no end of the token")?;
        ensure!(told.parse::<jiff::Timestamp>()?.as_second() == ends, "{told}");
        status.certificate_expires_at.context("no end of the certificate")?;
        Ok(())
    })
    .await;
    secrets.extend([old, renewed]);
    secrets.extend(secret_texts(&in_east, &in_west).await);

    // What is asked of west holds no private key, and the certificate that is kept is for the key that is kept.
    let held = secret(&in_east, GATEWAY_TLS_SECRET).await.unwrap();
    assert!(held["client-west.crt"].contains("BEGIN CERTIFICATE") && held.contains_key(CLIENT_KEY));
    let requests: Api<CertificateSigningRequest> = Api::all(in_west.clone());
    for request in requests.list(&ListParams::default()).await.unwrap() {
        let text = String::from_utf8(request.spec.request.0).unwrap();
        assert!(
            text.starts_with("-----BEGIN CERTIFICATE REQUEST-----") && !text.contains("PRIVATE"),
            "{text}"
        );
    }

    // A refusal is told where it was asked for and where it was given.
    let label = async |text: &str| {
        let label = ["-n", NAMESPACE, "label", "--overwrite", "serviceaccount", REMOTE_ACCESS_ACCOUNT, text];
        west.server.kubectl(label).unwrap().run(SOON).await.unwrap().success().unwrap();
    };
    let drop_certificate = async || {
        let patch = json!({"data": {"client-west.crt": null}});
        let held = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(in_east.clone(), NAMESPACE);
        held.patch(GATEWAY_TLS_SECRET, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    label("linkspan.dev/link-account-").await;
    drop_certificate().await;
    let told = condition(&in_east, VALID, "False", "CertificateDenied").await;
    assert!(
        told.contains("denied by the target cluster") && told.contains("does not carry the label"),
        "{told}"
    );
    let denied = requests.list(&ListParams::default()).await.unwrap().items;
    let conditions = denied.iter().filter_map(|r| r.status.as_ref()?.conditions.as_ref()).flatten();
    let denied = conditions.filter(|c| c.type_ == "Denied").filter_map(|c| c.message.as_deref());
    assert!(denied.into_iter().any(|message| told.ends_with(message)), "{told}");
    label("linkspan.dev/link-account=true").await;
    condition(&in_east, VALID, "True", "Valid").await;

    // Rights that are missing are named, with what gives them back.
    let rights = Api::<k8s_openapi::api::rbac::v1::Role>::namespaced(in_west.clone(), NAMESPACE);
    let before = rights.get(REMOTE_ACCESS_ACCOUNT).await.unwrap().rules.unwrap();
    let (few, taken): (Vec<_>, Vec<_>) = before
        .into_iter()
        .partition(|rule| rule.resources.iter().flatten().all(|resource| resource != "configmaps"));
    assert_eq!(taken.len(), 1);
    let patch = Patch::Merge(json!({"rules": few}));
    rights.patch(REMOTE_ACCESS_ACCOUNT, &PatchParams::default(), &patch).await.unwrap();
    let told = condition(&in_east, VALID, "False", "Forbidden").await;
    assert!(
        told.contains("cannot get resource \"configmaps\"") && told.contains("`link-cli install`"),
        "{told}"
    );
    let install = west.link_cli(["install", "--ignore-cluster", "--skip-crds"]).await.unwrap();
    west.server.apply(&install).await.unwrap();
    condition(&in_east, VALID, "True", "Valid").await;

    // A token for Git does not end.
    let output = link_output(&west, &["--long-lived-token"]).await;
    assert!(output.lines().next().unwrap().contains("does not end"));
    secrets.push(token_of(&output));
    assert!(claims(&secrets[secrets.len() - 1]).unwrap().get("exp").is_none());
    east.server.apply(&output).await.unwrap();
    eventually(SOON, "credentials that do not end", async || {
        let status = links.get("west").await?.status.context("no status")?;
        ensure!(status.token_expires_at.is_none(), "it ends at {:?}", status.token_expires_at);
        ensure!(
            status.conditions.iter().any(|c| c.kind == VALID && c.status == "True"),
            "{:?}",
            status.conditions
        );
        Ok(())
    })
    .await;

    // All of this was logged at the most verbose level.
    secrets.extend(secret_texts(&in_east, &in_west).await);
    for installation in [&mut east, &mut west] {
        let kubeconfig = installation.server.name().to_owned();
        let controller = installation.controller().unwrap();
        controller.running().unwrap();
        assert_none_in(&controller.log(), &format!("the controller of {kubeconfig}"), &secrets);
    }
}
