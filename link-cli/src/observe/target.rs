//! What a link needs to know of the cluster it leads to.

use crate::{
    cli::Global,
    cluster::{self, Cluster},
    manifests::{
        api_access::{self, KnownServer, Reachable},
        link::ApiAccess,
        rights,
    },
    progress::{Look, Progress, wait_for},
};
use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{ConfigMap, Secret, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
    },
};
use kube::{Api, api::PostParams};
use linkspan_core::api::{
    identity::TrustDomain,
    labels::{GATEWAY, GATEWAY_PORT_NAME, LINK_ACCOUNT},
};
use serde_json::json;
use std::{net::IpAddr, time::Duration};

/// The target's CA bundle and trust domain, waited for until its controller has published them.
///
/// # Errors
/// When they do not come, or Linkspan is not installed.
pub async fn trust(
    cluster: &Cluster,
    wait: Duration,
    progress: &mut Progress,
) -> anyhow::Result<(String, TrustDomain)> {
    let (bundle, domain) = wait_for(progress, wait, async || {
        Ok(match cluster.published_trust().await? {
            Some(found) => Look::Done(found),
            None => Look::NotYet(format!(
                "the controller in context {} has not published its CA bundle (ConfigMap linkspan-ca-bundle in namespace {}): see `link-cli --context {} check`",
                cluster.context, cluster.namespace, cluster.context
            )),
        })
    })
    .await?;
    let domain = domain.trim().parse().with_context(|| {
        format!("trust domain in ConfigMap linkspan-ca-bundle of context {} cannot be used", cluster.context)
    })?;
    Ok((bundle, domain))
}

/// Addresses and port of the target's gateway: given by flags, else those of its Service, waited for while the load
/// balancer is being made.
///
/// # Errors
/// When there is no Service, or it has no address that other clusters reach.
pub async fn gateway(
    cluster: &Cluster,
    given: (&[String], Option<u16>),
    wait: Duration,
    progress: &mut Progress,
) -> anyhow::Result<(Vec<String>, u16)> {
    let (addresses, port) = given;
    if let (false, Some(port)) = (addresses.is_empty(), port) {
        return Ok((addresses.to_vec(), port));
    }
    let found = wait_for(progress, wait, async || {
        let service = cluster.get(&cluster.ours::<Service>(), GATEWAY, "Service").await?;
        let service = service.ok_or_else(|| not_installed(cluster))?;
        gateway_of(&service, addresses, &cluster.namespace)
    })
    .await?;
    Ok((found.0, port.unwrap_or(found.1)))
}

fn not_installed(cluster: &Cluster) -> anyhow::Error {
    let context = &cluster.context;
    anyhow!(
        "Linkspan is not installed in context {context} (no Service {GATEWAY} in namespace {}): run `link-cli --context {context} install | kubectl --context {context} apply -f -`",
        cluster.namespace
    )
}

/// Address and port by which other clusters reach the gateway's Service.
fn gateway_of(
    service: &Service,
    given: &[String],
    namespace: &str,
) -> anyhow::Result<Look<(Vec<String>, u16)>> {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some(GATEWAY_PORT_NAME));
    let Some(port) = port else {
        bail!(
            "gateway service {GATEWAY} in namespace {namespace} has no gateway port named {GATEWAY_PORT_NAME}: apply the output of `link-cli install` again"
        );
    };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    let number = if kind == "NodePort" { port.node_port.unwrap_or(port.port) } else { port.port };
    let number = u16::try_from(number).context("the gateway's port is no port number")?;
    if !given.is_empty() {
        return Ok(Look::Done((given.to_vec(), number)));
    }
    let balancer = service.status.clone().unwrap_or_default().load_balancer.unwrap_or_default();
    let ingress = balancer.ingress.unwrap_or_default().into_iter().filter_map(|i| i.ip.or(i.hostname));
    let found: Vec<String> = ingress.chain(spec.external_ips.unwrap_or_default()).collect();
    if !found.is_empty() {
        return Ok(Look::Done((found, number)));
    }
    if kind != "LoadBalancer" {
        bail!(
            "gateway {GATEWAY}.{namespace} is a Service of type {kind}, whose address other clusters cannot learn from it: pass --gateway-addresses with addresses that lead to port {number}"
        );
    }
    Ok(Look::NotYet(format!(
        "gateway {GATEWAY}.{namespace} has no ingress addresses: its load balancer is not ready; wait longer with --wait, or pass --gateway-addresses"
    )))
}

/// How the importing cluster signs in to the target: as which account, how, and for how long.
#[derive(Clone, Debug)]
pub struct SignIn<'a> {
    /// ServiceAccount in the target cluster.
    pub account: &'a str,
    /// Address of the API server, where it is given.
    pub api_server_address: Option<&'a str>,
    /// How long the token lives.
    pub token_lifetime: Duration,
    /// Whether a token that never ends is wanted.
    pub long_lived: bool,
}

/// Access to the target's API for the link's account, and when its token ends.
///
/// # Errors
/// When no address is known, or no token is to be had.
pub async fn api_access(
    global: &Global,
    cluster: &Cluster,
    sign_in: &SignIn<'_>,
    progress: &mut Progress,
) -> anyhow::Result<(ApiAccess, Option<Timestamp>)> {
    let known = known_server(global, &cluster.context)?;
    let cluster_ca = cluster_ca(cluster).await?;
    let published = published_address(cluster).await?;
    let Reachable { server, ca_data, tls_server_name } =
        api_access::choose(sign_in.api_server_address, known, published, cluster_ca)?;
    check_account(cluster, sign_in.account).await?;
    let (token, expires) = if sign_in.long_lived {
        (long_lived_token(cluster, sign_in.account, progress).await?, None)
    } else {
        let (token, expires) = request_token(cluster, sign_in).await?;
        (token, Some(expires))
    };
    Ok((ApiAccess { server, ca_data, tls_server_name, token }, expires))
}

fn known_server(global: &Global, context: &str) -> anyhow::Result<KnownServer> {
    let kubeconfig = cluster::kubeconfig(global)?;
    let contexts = kubeconfig.contexts.into_iter().find(|c| c.name == context).and_then(|c| c.context);
    let name = contexts
        .ok_or_else(|| {
            anyhow!("could not extract current context from config: {context} is not in the kubeconfig")
        })?
        .cluster;
    let found = kubeconfig.clusters.into_iter().find(|c| c.name == name).and_then(|c| c.cluster);
    let found = found
        .ok_or_else(|| anyhow!("the kubeconfig has no cluster {name}, which context {context} names"))?;
    let ca_data = match (&found.certificate_authority_data, &found.certificate_authority) {
        (Some(data), _) => Some(data.clone()),
        (None, Some(path)) => {
            let pem = std::fs::read(path)
                .with_context(|| format!("certificate authority {path} cannot be read"))?;
            base64(&pem)
        }
        (None, None) => None,
    };
    Ok(KnownServer {
        server: found.server.unwrap_or_default(),
        ca_data,
        tls_server_name: found.tls_server_name,
        unchecked: found.insecure_skip_tls_verify == Some(true),
    })
}

fn base64(bytes: &[u8]) -> Option<String> {
    json!(ByteString(bytes.to_vec())).as_str().map(str::to_owned)
}

/// The CA that pods are given, in base64; Kubernetes keeps it in every namespace.
async fn cluster_ca(cluster: &Cluster) -> anyhow::Result<Option<String>> {
    let found = cluster.get(&cluster.ours::<ConfigMap>(), "kube-root-ca.crt", "ConfigMap").await?;
    let pem = found.and_then(|map| map.data).and_then(|mut data| data.remove("ca.crt"));
    Ok(pem.and_then(|pem| base64(pem.as_bytes())))
}

/// The first address at which the API servers say they are.
async fn published_address(cluster: &Cluster) -> anyhow::Result<Option<(IpAddr, u16)>> {
    let api = Api::<EndpointSlice>::namespaced(cluster.client.clone(), "default");
    let Some(slice) = cluster.get(&api, "kubernetes", "EndpointSlice").await? else { return Ok(None) };
    let mut addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let ip = addresses.find_map(|address| address.parse().ok());
    let mut ports = slice.ports.iter().flatten();
    let port = ports.find_map(|port| port.port.and_then(|port| u16::try_from(port).ok()));
    Ok(ip.zip(port))
}

async fn check_account(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let found = cluster.get(&cluster.ours::<ServiceAccount>(), name, "ServiceAccount").await?;
    let Some(account) = found else {
        bail!(
            "service account {name} does not exist in namespace {} of context {}: make it with `link-cli allow --service-account-name {name} | kubectl apply -f -`",
            cluster.namespace,
            cluster.context
        );
    };
    let label = account.metadata.labels.unwrap_or_default();
    if label.get(LINK_ACCOUNT).map(String::as_str) != Some("true") {
        bail!(
            "service account {name} is not for linked clusters: it has no label {LINK_ACCOUNT}=true; use another, or make one with `link-cli allow`"
        );
    }
    Ok(())
}

async fn request_token(cluster: &Cluster, sign_in: &SignIn<'_>) -> anyhow::Result<(String, Timestamp)> {
    let seconds = i64::try_from(sign_in.token_lifetime.as_secs()).context("--token-lifetime is too long")?;
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let api = cluster.ours::<ServiceAccount>();
    let answer = api.create_token_request(sign_in.account, &PostParams::default(), &request).await;
    let answer = answer.map_err(|e| {
        cluster.explain(&format!("requesting a token for service account {}", sign_in.account), &e)
    })?;
    let status = answer.status.context("the API server answered a token request without a token")?;
    Ok((status.token, status.expiration_timestamp.0))
}

/// Longest wait for Kubernetes to fill a token Secret.
const TOKEN_WAIT: Duration = Duration::from_secs(30);

async fn long_lived_token(
    cluster: &Cluster,
    account: &str,
    progress: &mut Progress,
) -> anyhow::Result<String> {
    let name = rights::token_secret(account);
    let mut metadata = crate::manifests::object::metadata(&cluster.namespace, &name, &[]);
    metadata["annotations"] = json!({"kubernetes.io/service-account.name": account});
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": metadata,
    });
    cluster.apply(&secret, false).await?;
    let token = wait_for(progress, TOKEN_WAIT, async || {
        let found = cluster.get(&cluster.ours::<Secret>(), &name, "Secret").await?;
        let token = found.and_then(|secret| secret.data).and_then(|mut data| data.remove("token"));
        Ok(match token {
            Some(token) => Look::Done(token.0),
            None => Look::NotYet(format!("could not find the token data in service account secret {name}")),
        })
    })
    .await?;
    String::from_utf8(token).context("the token of the service account is no text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value};

    fn look(spec: &Value, status: &Value, given: &[String]) -> Result<(Vec<String>, u16), String> {
        let service: Service = from_value(json!({"metadata": {}, "spec": spec, "status": status})).unwrap();
        match gateway_of(&service, given, "linkspan") {
            Ok(Look::Done(found)) => Ok(found),
            Ok(Look::NotYet(why)) => Err(format!("wait: {why}")),
            Err(e) => Err(e.to_string()),
        }
    }

    fn spec(kind: &str) -> Value {
        json!({"type": kind, "ports": [{"name": "mc-gateway", "port": 4143, "nodePort": 30143}]})
    }

    #[test]
    fn a_load_balancers_addresses_are_taken_once_it_has_some() {
        let status = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "gw.example"}]}});
        assert_eq!(
            look(&spec("LoadBalancer"), &status, &[]),
            Ok((vec!["10.0.0.1".into(), "gw.example".into()], 4143))
        );
        let wait = look(&spec("LoadBalancer"), &json!({}), &[]).unwrap_err();
        assert!(
            wait.starts_with("wait: gateway linkspan-gateway.linkspan has no ingress addresses"),
            "{wait}"
        );
    }

    #[test]
    fn other_types_need_addresses_by_flag() {
        let error = look(&spec("NodePort"), &json!({}), &[]).unwrap_err();
        assert!(error.contains("--gateway-addresses") && error.contains("30143"), "{error}");
        assert_eq!(
            look(&spec("NodePort"), &json!({}), &["1.2.3.4".into()]),
            Ok((vec!["1.2.3.4".into()], 30143))
        );
        let mut nameless = spec("LoadBalancer");
        nameless["ports"][0]["name"] = json!("other");
        assert!(look(&nameless, &json!({}), &[]).unwrap_err().contains("no gateway port named mc-gateway"));
    }
}
