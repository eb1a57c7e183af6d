//! Who may speak to an API server, and as whom: tokens, kubeconfigs, clients.

use super::ApiServer;
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::SigningKey;
use serde_json::{Value, json};
use std::time::Duration;

impl ApiServer {
    /// A client that may do everything and goes straight to the server, past all faults. Make one per test: it
    /// belongs to the runtime it was made in.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub async fn admin(&self) -> Result<Client> {
        client(&self.direct_kubeconfig()?).await
    }

    /// A client that signs in with `kubeconfig`, e.g. one of [`ApiServer::kubeconfig_of`].
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self, kubeconfig: &str) -> Result<Client> {
        client(kubeconfig).await
    }

    /// A client of a service account, which must exist, by a real token.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn client_as(&self, namespace: &str, account: &str) -> Result<Client> {
        client(&self.kubeconfig_of(namespace, account).await?).await
    }

    /// The kubeconfig of a service account, which must exist, with a token for an hour.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<String> {
        self.kubeconfig(&self.token(namespace, account, Duration::from_secs(3600)).await?)
    }

    /// A token of a service account, which must exist.
    ///
    /// # Errors
    /// When there is no such account, or `lifetime` is less than ten minutes.
    pub async fn token(&self, namespace: &str, account: &str, lifetime: Duration) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin().await?, namespace);
        let expiration_seconds = Some(i64::try_from(lifetime.as_secs())?);
        let spec = TokenRequestSpec { expiration_seconds, ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| format!("no token for account {namespace}/{account}"))?;
        Ok(answer.status.context("a token request was answered without a token")?.token)
    }

    /// A token of a service account as this server would have made it at another time: `begun` and `ends` are seconds
    /// from now on. It is genuine, so the server takes it within that time.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn token_between(
        &self,
        namespace: &str,
        account: &str,
        begun: i64,
        ends: i64,
    ) -> Result<String> {
        let real = self.token(namespace, account, Duration::from_secs(3600)).await?;
        let mut claims = claims(&real)?;
        let now = claims["iat"].as_i64().context("a token does not say when it was made")?;
        for (claim, at) in [("iat", begun), ("nbf", begun), ("exp", ends)] {
            claims[claim] = json!(now + at);
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": "ES256", "typ": "JWT"})), encode(&claims));
        let signature = fixed(&self.files.account_signer.sign(signed.as_bytes())?)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The kubeconfig (YAML) of who has `token`. It goes through [`ApiServer::faults`].
    ///
    /// # Errors
    /// When the CA cannot be written.
    pub fn kubeconfig(&self, token: &str) -> Result<String> {
        kubeconfig(&self.url(), &self.ca(), token)
    }

    /// The kubeconfig of a user who may do everything. It goes through [`ApiServer::faults`].
    ///
    /// # Errors
    /// When the CA cannot be written.
    pub fn admin_kubeconfig(&self) -> Result<String> {
        self.kubeconfig(&self.files.admin_token)
    }

    pub(super) fn direct_kubeconfig(&self) -> Result<String> {
        kubeconfig(&format!("https://127.0.0.1:{}", self.port), &self.ca(), &self.files.admin_token)
    }
}

/// What a token says.
///
/// # Errors
/// When it is none.
pub fn claims(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).context("this is no token")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// An ECDSA P-256 signature in the form of a JWT (two numbers of 32 bytes) from its ASN.1 form.
fn fixed(signature: &[u8]) -> Result<Vec<u8>> {
    let mut rest = signature.get(2..).context("an empty signature")?;
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1).context("a short signature")?);
        let number = rest.get(2..2 + length).context("a short signature")?;
        let number: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        numbers.extend(std::iter::repeat_n(0, 32 - number.len()));
        numbers.extend(number);
        rest = &rest[2 + length..];
    }
    Ok(numbers)
}

/// A kubeconfig (YAML) with one context, named `test`.
pub(super) fn kubeconfig(server: &str, ca: &str, token: &str) -> Result<String> {
    let ca = serde_json::to_value(ByteString(ca.as_bytes().to_vec()))?;
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": "test", "user": {"token": token}}],
    });
    Ok(serde_norway::to_string(&config)?)
}

/// A client that signs in with `kubeconfig`.
pub(super) async fn client(kubeconfig: &str) -> Result<Client> {
    let parsed = Kubeconfig::from_yaml(kubeconfig).context("not a kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
    // The machine's own proxy settings are for the world outside.
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}
