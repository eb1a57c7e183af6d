//! `upgrade`: prints this version of an installation that stands, with the values that it has.

use crate::{
    app::Outcome,
    cli::{Global, VERSION},
    cluster::Cluster,
    commands::install::{Chosen, leave_foreign, obstacle},
    manifests::{
        object::{Key, Object},
        system,
    },
    observe::standing::{self, Standing},
    output,
};
use anyhow::bail;
use clap::Args;
use serde_json::Value;

/// Flags of `upgrade`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east upgrade | kubectl --context east apply -f -
  link-cli --context east upgrade --set gateway.replicas=4 | kubectl --context east apply -f -
  link-cli --context east upgrade --reset-values -f values.yaml > linkspan.yaml")]
pub struct UpgradeArgs {
    /// Do not keep the values of the installation: the defaults, and what the flags say
    #[arg(long)]
    reset_values: bool,
    /// Go back to an older version, too
    #[arg(long)]
    allow_downgrade: bool,
    #[command(flatten)]
    chosen: Chosen,
}

/// Runs `upgrade`.
///
/// # Errors
/// When nothing is installed, something is in the way, or a value cannot be used.
pub async fn run(global: &Global, args: UpgradeArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let found = standing::look(&cluster).await?;
    if let Some(why) = refusal(&found, &cluster.namespace, &args) {
        bail!("{why} (context {})", cluster.context);
    }
    let kept = found.values.clone().filter(|_| !args.reset_values);
    if let Some(tag) =
        kept.as_ref().and_then(|values| values["imageVersion"].as_str()).filter(|tag| !tag.is_empty())
    {
        output::note(&format!(
            "the installation asks for images of version {tag}, which is kept: pass --image-version {VERSION} for those of this tool"
        ));
    }
    let mut objects = args.chosen.objects(&cluster.namespace, kept)?;
    leave_foreign(&mut objects, &found);
    let left = left_over(&cluster, &objects).await?;
    output::print(&output::documents(&objects, args.chosen.output(), None))?;
    for key in left {
        output::note(&format!(
            "no longer part of the installation: `kubectl --context {} -n {} delete {} {}`",
            cluster.context,
            cluster.namespace,
            key.kind.to_lowercase(),
            key.name
        ));
    }
    Ok(Outcome::Well)
}

fn refusal(found: &Standing, namespace: &str, args: &UpgradeArgs) -> Option<String> {
    if let Some(why) = obstacle(found, namespace, args.chosen.without_definitions()) {
        return Some(why);
    }
    if !found.installed {
        return Some(format!("Linkspan is not installed in namespace {namespace}: use `link-cli install`"));
    }
    if let (Some(installed), Some(ours)) = (numbers(&found.version), numbers(VERSION))
        && installed > ours
        && !args.allow_downgrade
    {
        return Some(format!(
            "version {} is installed and this is link-cli {VERSION}: use link-cli {0}, or go back with --allow-downgrade",
            found.version
        ));
    }
    if found.values.is_none() && !args.reset_values {
        return Some(format!(
            "the values of the installation are not known (no ConfigMap {} in namespace {namespace}): pass them again by -f or --set, together with --reset-values",
            system::VALUES_CONFIG_MAP
        ));
    }
    stored_elsewhere(found)
}

/// Objects may be stored in a version that the new definition no longer has.
fn stored_elsewhere(found: &Standing) -> Option<String> {
    let ours = system::definitions();
    for definition in &found.definitions {
        let new =
            ours.iter().find(|crd| crd["metadata"]["name"] == Value::String(definition.name.clone()))?;
        let served: Vec<&str> = new["spec"]["versions"]
            .as_array()?
            .iter()
            .filter_map(|version| version["name"].as_str())
            .collect();
        if let Some(old) = definition.stored_versions.iter().find(|stored| !served.contains(&stored.as_str()))
        {
            return Some(format!(
                "objects of {0} may be stored in version {old}, which this version does not have: upgrade to a version in between first, or use `kubectl` to write them anew and take {old} out of the definition's status.storedVersions",
                definition.name
            ));
        }
    }
    None
}

/// `1.2.3` and `1.2.3-rc.1` as numbers; anything else, such as `demo`, cannot be compared.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let version = version.trim_start_matches('v');
    let release = version.split(['-', '+']).next()?;
    let mut parts = release.split('.').map(str::parse::<u32>);
    let mut next = || parts.next()?.ok();
    Some([next()?, next()?, next()?])
}

/// What an installation with other values had and this one has not.
async fn left_over(cluster: &Cluster, objects: &[Object]) -> anyhow::Result<Vec<Key>> {
    let wanted: Vec<Key> = objects.iter().map(Key::of).collect();
    let mut left = vec![];
    for key in system::only_with_some_values(&cluster.namespace) {
        if !wanted.contains(&key) && cluster.find(&key).await?.is_some() {
            left.push(key);
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{Cli, Command},
        observe::standing::Definition,
    };
    use clap::Parser;
    use serde_json::json;

    fn upgrade(flags: &str) -> UpgradeArgs {
        let line = ["link-cli", "upgrade"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(line).unwrap().command {
            Command::Upgrade(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn installed() -> Standing {
        let values = Some(json!({"ha": true}));
        Standing { installed: true, version: VERSION.into(), values, ..Standing::default() }
    }

    fn refused(found: &Standing, flags: &str) -> String {
        refusal(found, "linkspan", &upgrade(flags)).unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_upgraded_is_told_with_what_to_do() {
        assert_eq!(refused(&installed(), ""), "");
        assert!(refused(&Standing::default(), "").contains("link-cli install"));
        let newer = Standing { version: "99.0.0".into(), ..installed() };
        assert!(refused(&newer, "").contains("--allow-downgrade"));
        assert_eq!(refused(&newer, "--allow-downgrade"), "");
        let unknown = Standing { values: None, ..installed() };
        assert!(refused(&unknown, "").contains("--reset-values"));
        assert_eq!(refused(&unknown, "--reset-values"), "");
        let helm = Standing { helm_release: Some("ls".into()), ..installed() };
        assert!(refused(&helm, "").contains("helm upgrade ls"));
    }

    #[test]
    fn versions_that_are_still_stored_must_be_known() {
        let stored = |version: &str| Definition {
            name: "links.multicluster.linkerd.io".into(),
            labels: json!({"app.kubernetes.io/part-of": "linkspan"}),
            stored_versions: vec![version.into()],
        };
        let with = |version| Standing { definitions: vec![stored(version)], ..installed() };
        assert_eq!(refused(&with("v1alpha1"), ""), "");
        assert!(refused(&with("v0"), "").contains("storedVersions"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("0.10.0") > numbers("v0.9.1-rc.1"));
        assert_eq!((numbers("demo"), numbers("1.2"), numbers("")), (None, None, None));
    }
}
