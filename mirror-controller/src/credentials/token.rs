//! What a bearer token says of itself. Pure.
//!
//! Only the API server can tell whether a token is genuine; what is read here decides when to renew it and as whom to
//! ask for certificates, never what anybody may do.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;

/// A ServiceAccount of the target cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// The account it was made for; `None` when it does not say.
    pub account: Option<Account>,
    /// When it was made.
    pub issued_at: Option<Timestamp>,
    /// When it ends; `None` when it does not, or does not say.
    pub expires_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Payload {
    sub: Option<String>,
    exp: Option<f64>,
    iat: Option<f64>,
    /// Tokens made by TokenRequest.
    #[serde(rename = "kubernetes.io")]
    bound: Option<Bound>,
    /// Tokens kept in Secrets.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    kept_uid: Option<String>,
}

#[derive(Deserialize)]
struct Bound {
    serviceaccount: Option<BoundAccount>,
}

#[derive(Deserialize)]
struct BoundAccount {
    uid: Option<String>,
}

impl Token {
    /// Reads a token; one that is no JWT, or says nothing, gives an empty answer.
    pub fn read(text: &str) -> Self {
        let Some(payload) = payload(text) else { return Self::default() };
        let bound = payload.bound.and_then(|bound| bound.serviceaccount).and_then(|account| account.uid);
        let uid = bound.or(payload.kept_uid);
        let account = payload.sub.as_deref().and_then(account_of).zip(uid);
        Self {
            account: account.map(|((namespace, name), uid)| Account { namespace, name, uid }),
            issued_at: payload.iat.and_then(time),
            expires_at: payload.exp.and_then(time),
        }
    }
}

/// Namespace and name of the ServiceAccount whose user name is `user`.
pub fn account_of(user: &str) -> Option<(String, String)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let fit = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    fit.then(|| (namespace.to_owned(), name.to_owned()))
}

fn payload(text: &str) -> Option<Payload> {
    let mut parts = text.trim().split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

/// JWT times are seconds since 1970, with or without a fraction.
fn time(seconds: f64) -> Option<Timestamp> {
    Timestamp::from_second(seconds as i64).ok().filter(|_| seconds.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn jwt(payload: &str) -> String {
        format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn tokens_of_both_makers_are_read() {
        let bound = Token::read(&jwt(
            r#"{"sub":"system:serviceaccount:linkspan:access","iat":1767225600,"exp":1767312000,
                "kubernetes.io":{"namespace":"linkspan","serviceaccount":{"name":"access","uid":"u-1"}}}"#,
        ));
        let account = Account { namespace: "linkspan".into(), name: "access".into(), uid: "u-1".into() };
        assert_eq!(bound.account, Some(account.clone()));
        assert_eq!(bound.issued_at, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(bound.expires_at, Some("2026-01-02T00:00:00Z".parse().unwrap()));
        let kept = Token::read(&jwt(r#"{"sub":"system:serviceaccount:linkspan:access",
                "kubernetes.io/serviceaccount/service-account.uid":"u-1"}"#));
        assert_eq!(kept, Token { account: Some(account), issued_at: None, expires_at: None });
    }

    #[test]
    fn what_is_no_jwt_says_nothing() {
        for text in ["", "abc", "a.b", "a.b.c", "a.b.c.d", "..", &jwt("[]"), &jwt("{\"exp\":\"soon\"}")] {
            assert_eq!(Token::read(text), Token::default(), "{text}");
        }
        let person = Token::read(&jwt(r#"{"sub":"jane","exp":1767312000}"#));
        assert!(person.account.is_none() && person.expires_at.is_some());
        assert_eq!(Token::read(&jwt(r#"{"exp":1e300}"#)).expires_at, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,300}") {
            Token::read(&text);
        }

        #[test]
        fn any_payload_is_read(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            Token::read(&format!("a.{}.b", URL_SAFE_NO_PAD.encode(payload)));
        }

        #[test]
        fn any_numbers_are_read(iat: f64, exp: f64) {
            Token::read(&jwt(&serde_json::json!({"iat": iat, "exp": exp}).to_string()));
        }
    }
}
