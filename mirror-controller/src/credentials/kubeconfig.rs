//! The kubeconfig in a Secret: which API it leads to, by which token, and the same one with another token. Pure.

use crate::credentials::token::Token;
use jiff::Timestamp;
use serde_json::Value;

/// A kubeconfig that was read. It prints nothing: it holds a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The kubeconfig (YAML).
    pub text: String,
    /// What its token says.
    pub token: Token,
    /// Where it leads: the server's address and the CA it is checked by.
    destination: (String, Option<String>),
}

/// Why a kubeconfig cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubeconfigError {
    /// It is no YAML.
    #[error("it is not YAML")]
    Form,
    /// A part is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
}

impl Credentials {
    /// Reads a kubeconfig (YAML): its current context, that context's cluster and user.
    ///
    /// # Errors
    /// What it lacks.
    pub fn read(text: &str) -> Result<Self, KubeconfigError> {
        let root: Value = serde_norway::from_str(text).map_err(|_| KubeconfigError::Form)?;
        let (cluster, user) = chosen(&root)?;
        let cluster = named(&root, "clusters", &cluster).ok_or(KubeconfigError::Missing("such cluster"))?;
        let cluster = &root["clusters"][cluster]["cluster"];
        let server = cluster["server"].as_str().ok_or(KubeconfigError::Missing("server"))?;
        let user = named(&root, "users", &user).ok_or(KubeconfigError::Missing("such user"))?;
        let token = root["users"][user]["user"]["token"].as_str().map(Token::read).unwrap_or_default();
        let ca = cluster["certificate-authority-data"].as_str().map(str::to_owned);
        Ok(Self { text: text.to_owned(), token, destination: (server.to_owned(), ca) })
    }

    /// The same kubeconfig (YAML) with `token` in place of its own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn with_token(&self, token: &str) -> Result<String, KubeconfigError> {
        let mut root: Value = serde_norway::from_str(&self.text).map_err(|_| KubeconfigError::Form)?;
        let (_, user) = chosen(&root)?;
        let user = named(&root, "users", &user).ok_or(KubeconfigError::Missing("such user"))?;
        let user = root["users"][user]["user"]
            .as_object_mut()
            .ok_or(KubeconfigError::Missing("user with a token"))?;
        user.insert("token".to_owned(), Value::from(token));
        serde_norway::to_string(&root).map_err(|_| KubeconfigError::Form)
    }

    /// Whether this is `given` with a newer token: the same API, the same account, made later.
    fn succeeds(&self, given: &Credentials) -> bool {
        let (new, old) = (&self.token, &given.token);
        let later = match (new.issued_at, old.issued_at) {
            (Some(new), Some(old)) => new > old,
            _ => new.expires_at > old.expires_at,
        };
        self.destination == given.destination
            && new.account.is_some()
            && new.account == old.account
            && old.expires_at.is_some()
            && later
    }
}

/// Which credentials to use at `now`: what we renewed, where it succeeds what was given and has not ended; else what
/// was given. So credentials that are applied anew, for another account or another cluster too, always win over what
/// is left of older ones.
pub fn choose<'a>(
    given: &'a Credentials,
    renewed: Option<&'a Credentials>,
    now: Timestamp,
) -> &'a Credentials {
    let usable = |renewed: &&Credentials| {
        renewed.succeeds(given) && renewed.token.expires_at.is_none_or(|end| end > now)
    };
    renewed.filter(usable).unwrap_or(given)
}

/// Names of the current context's cluster and user.
fn chosen(root: &Value) -> Result<(String, String), KubeconfigError> {
    let current = root["current-context"].as_str().ok_or(KubeconfigError::Missing("current-context"))?;
    let at = named(root, "contexts", current).ok_or(KubeconfigError::Missing("context of that name"))?;
    let context = &root["contexts"][at]["context"];
    let text = |key, what| context[key].as_str().map(str::to_owned).ok_or(KubeconfigError::Missing(what));
    Ok((text("cluster", "cluster in its context")?, text("user", "user in its context")?))
}

/// Where in list `list` the entry `name` stands.
fn named(root: &Value, list: &str, name: &str) -> Option<usize> {
    root[list].as_array()?.iter().position(|entry| entry["name"] == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    fn token(uid: &str, made: i64) -> String {
        token_until(uid, made, Some(made + 100))
    }

    fn token_until(uid: &str, made: i64, end: Option<i64>) -> String {
        let payload = serde_json::json!({
            "sub": "system:serviceaccount:linkspan:access", "iat": made, "exp": end,
            "kubernetes.io": { "serviceaccount": { "uid": uid } },
        });
        format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    fn credentials(server: &str, token: &str) -> Credentials {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: west\nextra: kept\n\
             contexts:\n- name: west\n  context:\n    cluster: c\n    user: u\n\
             clusters:\n- name: other\n  cluster: {{server: https://other}}\n\
             - name: c\n  cluster:\n    server: {server}\n    certificate-authority-data: QUJD\n\
             users:\n- name: u\n  user:\n    token: {token}\n"
        );
        Credentials::read(&text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn a_token_is_exchanged_and_the_rest_kept() {
        let given = credentials("https://10.0.0.1:6443", &token("u-1", 0));
        let renewed = Credentials::read(&given.with_token(&token("u-1", 100)).unwrap()).ok().unwrap();
        assert_eq!(renewed.token.expires_at.unwrap().as_second(), 200);
        assert_eq!(renewed.destination, given.destination);
        assert!(renewed.text.contains("extra: kept") && renewed.text.contains("https://other"));
    }

    #[test]
    fn the_renewed_one_is_used_only_where_it_succeeds_the_given_one() {
        let server = "https://10.0.0.1:6443";
        let given = credentials(server, &token("u-1", 1000));
        let now = Timestamp::from_second(1060).unwrap();
        let used = |renewed: &Credentials| choose(&given, Some(renewed), now) == renewed;
        assert!(used(&credentials(server, &token("u-1", 1050))));
        assert!(used(&credentials(server, &token_until("u-1", 1050, Some(1070)))), "made for less time");
        assert!(!used(&credentials(server, &token_until("u-1", 1050, Some(1055)))), "ended");
        assert!(!used(&credentials(server, &token("u-1", 999))), "linked again since");
        assert!(!used(&credentials(server, &token("u-2", 1050))), "the account was made anew since");
        assert!(!used(&credentials("https://10.0.0.2:6443", &token("u-1", 1050))), "another cluster");
        assert!(!used(&credentials(server, "opaque")));
        let endless = credentials(server, &token_until("u-1", 1000, None));
        let renewed = credentials(server, &token("u-1", 1050));
        assert!(choose(&endless, Some(&renewed), now) == &endless, "what does not end needs no successor");
        assert!(choose(&given, None, now) == &given);
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |text: &str| Credentials::read(text).err().unwrap().to_string();
        assert_eq!(missing("{"), "it is not YAML");
        assert_eq!(missing("{}"), "it has no current-context");
        assert_eq!(missing("{current-context: a}"), "it has no context of that name");
        let given =
            credentials("https://10.0.0.1", "t").text.replace("  user:\n    token: t", "  user: nobody");
        let refused = Credentials::read(&given).ok().unwrap().with_token("t").unwrap_err();
        assert_eq!(refused.to_string(), "it has no user with a token");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\n]{0,200}") {
            let _ = Credentials::read(&text);
        }
    }
}
