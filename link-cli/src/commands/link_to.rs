//! `link --to`: from two contexts to a live link. Each step may be repeated; a line on stderr tells of each.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    commands::link::{LinkArgs, describe},
    manifests::object::Key,
    observe::health,
    progress::{Look, Progress, wait_for},
};
use anyhow::{Context, bail};

/// Runs `link` with `--to`.
///
/// # Errors
/// When a step fails, or the link does not come to life in time.
pub async fn run(global: &Global, args: &LinkArgs) -> anyhow::Result<Outcome> {
    let other = args.to.as_deref().context("--to names no context")?;
    let (target, importer) =
        (Cluster::connect(global, None).await?, Cluster::connect(global, Some(other)).await?);
    if target.uid().await? == importer.uid().await? {
        bail!(
            "contexts {} and {} lead to one and the same cluster: name two",
            target.context,
            importer.context
        );
    }
    one_way(global, &target, &importer, args).await?;
    if let Some(peer) = args.peer_name.as_deref().filter(|_| args.both) {
        one_way(global, &importer, &target, &args.back(peer)).await?;
    }
    Ok(Outcome::Well)
}

async fn one_way(
    global: &Global,
    target: &Cluster,
    importer: &Cluster,
    args: &LinkArgs,
) -> anyhow::Result<()> {
    let mut progress = Progress::on_stderr();
    let name = &args.cluster_name;
    let dry = if args.dry_run { " (dry run)" } else { "" };
    check_installed(importer).await?;
    let described = describe(global, target, args, &mut progress).await?;
    progress.line(&format!("{}: gateway at {}", target.context, described.gateway));
    match described.expires {
        Some(time) => {
            progress.line(&format!("{}: token given, first renewed before {time:.0}", target.context));
        }
        None => progress.line(&format!("{}: token without end given", target.context)),
    }
    for object in &described.objects {
        importer.apply(object, args.dry_run).await?;
        let key = Key::of(object);
        progress.line(&format!("{}: {} {} applied{dry}", importer.context, key.kind, key.name));
    }
    if args.dry_run || args.wait.is_zero() {
        return Ok(());
    }
    let latency = wait_for(&mut progress, args.wait, async || {
        let links = health::links(importer).await?;
        let link = links.into_iter().find(|link| &link.name == name);
        Ok(match link {
            Some(link) if link.alive == Some(true) => Look::Done(link.latency_ms),
            Some(link) => Look::NotYet(format!(
                "link {name} in context {} is not alive: {}",
                importer.context,
                health::why(&link)
            )),
            None => Look::NotYet(format!("link {name} in context {} is gone", importer.context)),
        })
    })
    .await?;
    progress.line(&format!(
        "{}: link {name} is alive{}",
        importer.context,
        latency.map(|ms| format!(", {ms:.1} ms")).unwrap_or_default()
    ));
    Ok(())
}

async fn check_installed(importer: &Cluster) -> anyhow::Result<()> {
    use linkspan_core::api::labels::CONTROLLER;
    let key = Key::new("apps/v1", "Deployment", &importer.namespace, CONTROLLER);
    if importer.find(&key).await?.is_none() {
        let context = &importer.context;
        bail!(
            "Linkspan is not installed in context {context}: run `link-cli --context {context} install | kubectl --context {context} apply -f -`"
        );
    }
    Ok(())
}
