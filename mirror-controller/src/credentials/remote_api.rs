//! Calls to the target cluster's API with a link's credentials: do they work, as whom, and a token to succeed the
//! present one.

use crate::{
    credentials::{
        kubeconfig::Credentials,
        token::{Account, account_of},
    },
    issuer::api_call::{CallError, call, mend},
};
use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};
use linkspan_core::{api::credentials::CA_BUNDLE_CONFIG_MAP, process::kube_client};

/// Life of a token that we ask for; the API server may give less.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// Why credentials do not work.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig cannot be turned into a client.
    #[error("{0}")]
    Unusable(String),
    /// The API server does not know the token.
    #[error(
        "the target cluster's API does not accept the token: the account was deleted or the token revoked"
    )]
    Unauthorized,
    /// The API server knows the token, but the account may not do what it needs.
    #[error("the account of the token lacks a right in the target cluster: {0}{mend}", mend = mend(403))]
    Forbidden(String),
    /// The credentials are those of no ServiceAccount.
    #[error("the kubeconfig is not of a ServiceAccount ({0}); only those get certificates")]
    NotAnAccount(String),
    /// No answer.
    #[error("the target cluster's API cannot be reached: {0}")]
    Unreachable(String),
}

impl From<CallError> for AccessError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused { code: 401, .. } => Self::Unauthorized,
            CallError::Refused { code: 403, message } => Self::Forbidden(message),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// A client for `credentials` that has been seen to work, and as whom it works.
///
/// # Errors
/// Why they do not work.
pub async fn connect(credentials: &Credentials, namespace: &str) -> Result<(Client, Account), AccessError> {
    let config = kube_client::config_of_secret(&credentials.text)
        .await
        .map_err(|e| AccessError::Unusable(e.to_string()))?;
    let client = kube_client::sharing_client(config).map_err(|e| AccessError::Unusable(e.to_string()))?;
    probe(&client, namespace).await?;
    let account = match &credentials.token.account {
        Some(account) => account.clone(),
        None => whoami(&client).await?,
    };
    Ok((client, account))
}

/// Whether `client` works: it reads the target's CA bundle. That there is none yet is an answer, too.
///
/// # Errors
/// Why it does not.
pub async fn probe(client: &Client, namespace: &str) -> Result<(), AccessError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    call(api.get_opt(CA_BUNDLE_CONFIG_MAP)).await?;
    Ok(())
}

/// Asks the API server who we are, for tokens that do not say.
async fn whoami(client: &Client) -> Result<Account, AccessError> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = call(api.create(&PostParams::default(), &SelfSubjectReview::default())).await?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let (namespace, account) = account_of(&name).ok_or_else(|| AccessError::NotAnAccount(name.clone()))?;
    let uid = user.uid.ok_or(AccessError::NotAnAccount(name))?;
    Ok(Account { namespace, name: account, uid })
}

/// A new token for `account`, asked for by itself.
///
/// # Errors
/// Why there is none.
pub async fn new_token(client: &Client, account: &Account) -> Result<String, AccessError> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &account.namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = call(api.create_token_request(&account.name, &PostParams::default(), &request)).await?;
    let token = answer.status.map(|status| status.token).filter(|token| !token.is_empty());
    token.ok_or_else(|| AccessError::Unreachable("it answered without a token".to_owned()))
}
