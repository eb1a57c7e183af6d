//! The `HTTPRouteGroup` resource of SMI (`specs.smi-spec.io`): which requests a split with `matches` shares out.

use kube::CustomResource;
use regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// API group of HTTPRouteGroups.
pub const GROUP: &str = "specs.smi-spec.io";
/// The only version of HTTPRouteGroups that is read.
pub const VERSION: &str = "v1alpha4";
/// Most memory that one expression may take, in bytes.
const REGEX_LIMIT: usize = 1 << 20;

/// Named sets of requests.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "specs.smi-spec.io",
    version = "v1alpha4",
    kind = "HTTPRouteGroup",
    plural = "httproutegroups",
    singular = "httproutegroup",
    shortname = "htr",
    namespaced,
    derive = "PartialEq",
    derive = "Default"
)]
pub struct HttpRouteGroupSpec {
    /// A request is in the group when one of these selects it.
    #[serde(default)]
    pub matches: Vec<RouteMatch>,
}

/// Selects requests; what is absent selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteMatch {
    /// Name, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Methods; `*` stands for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Regular expression for the whole path, query excluded.
    #[serde(default, rename = "pathRegex", skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    /// Regular expressions for whole values of headers, by name: all must match.
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
}

/// Expressions by header name. SMI's text writes a list of maps, its definition a map: both are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Headers(pub BTreeMap<String, String>);

impl Headers {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Map(BTreeMap<String, String>),
            List(Vec<BTreeMap<String, String>>),
        }
        Ok(Self(match Form::deserialize(from)? {
            Form::Map(map) => map,
            Form::List(list) => list.into_iter().flatten().collect(),
        }))
    }
}

impl JsonSchema for Headers {
    fn schema_name() -> Cow<'static, str> {
        "Headers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-preserve-unknown-fields": true})
    }
}

/// An expression that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expression {0:?} cannot be used: {1}")]
pub struct MatchError(String, String);

/// A [`RouteMatch`] whose expressions are ready for use.
#[derive(Clone, Debug)]
pub struct Matcher {
    methods: Vec<String>,
    path: Option<Regex>,
    headers: Vec<(String, Regex)>,
}

impl RouteMatch {
    /// Makes the expressions ready for use.
    ///
    /// # Errors
    /// When one is no regular expression, or too large.
    pub fn compile(&self) -> Result<Matcher, MatchError> {
        let headers = self.headers.0.iter();
        Ok(Matcher {
            methods: self.methods.iter().filter(|m| !m.is_empty()).cloned().collect(),
            path: self.path_regex.as_deref().filter(|p| !p.is_empty()).map(whole).transpose()?,
            headers: headers
                .map(|(k, v)| Ok((k.to_ascii_lowercase(), whole(v)?)))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn whole(expression: &str) -> Result<Regex, MatchError> {
    let compile = |text: &str| {
        let regex = RegexBuilder::new(text).size_limit(REGEX_LIMIT).build();
        regex.map_err(|e| MatchError(expression.to_owned(), e.to_string().replace('\n', " ")))
    };
    // By itself first: one with a stray bracket must not reach out of the group around it.
    compile(expression)?;
    compile(&format!("^(?:{expression})$"))
}

impl Matcher {
    /// Whether the request is selected. `header` answers the values of a header by its lower-case name.
    pub fn selects<'a>(&self, method: &str, path: &str, header: impl Fn(&str) -> Vec<&'a str>) -> bool {
        let method_fits = self.methods.is_empty() || self.methods.iter().any(|m| m == "*" || m == method);
        method_fits
            && self.path.as_ref().is_none_or(|regex| regex.is_match(path))
            && self.headers.iter().all(|(name, regex)| header(name).iter().any(|value| regex.is_match(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RouteMatch {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn all_that_is_named_must_fit_as_a_whole() {
        let matcher =
            read(r#"{"methods": ["GET"], "pathRegex": "/api/.*", "headers": {"User-Agent": ".*Firefox.*"}}"#);
        let matcher = matcher.compile().unwrap();
        let firefox = |name: &str| if name == "user-agent" { vec!["Mozilla Firefox/1"] } else { vec![] };
        assert!(matcher.selects("GET", "/api/x", firefox));
        assert!(!matcher.selects("POST", "/api/x", firefox));
        assert!(!matcher.selects("GET", "/v1/api/x", firefox), "not a part of the path");
        assert!(!matcher.selects("GET", "/api/x", |_| vec![]));
        assert!(read(r#"{"methods": ["*"]}"#).compile().unwrap().selects("PATCH", "/", |_| vec![]));
        assert!(read("{}").compile().unwrap().selects("GET", "/", |_| vec![]));
    }

    #[test]
    fn headers_are_read_as_a_map_or_a_list() {
        let map = read(r#"{"headers": {"a": "1", "b": "2"}}"#);
        assert_eq!(map, read(r#"{"headers": [{"a": "1"}, {"b": "2"}]}"#));
    }

    #[test]
    fn bad_and_huge_expressions_are_refused() {
        assert!(read(r#"{"pathRegex": "("}"#).compile().is_err());
        assert!(read(r#"{"pathRegex": "(a{1000}){1000}"}"#).compile().is_err());
        let escape = read(r#"{"pathRegex": "a)|(b"}"#).compile();
        assert!(escape.is_err_and(|e| e.to_string().contains("a)|(b")), "an expression stays in its place");
    }
}
