//! `allow`: prints an account that another cluster may link with; lists and revokes such accounts.

use crate::{
    app::Outcome,
    cli::{Global, dns_label},
    cluster::Cluster,
    commands::removal::Removal,
    manifests::rights,
    output::{self, Column, Format, JsonForm},
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{ResourceExt, api::ListParams};
use linkspan_core::api::labels::{LINK_ACCOUNT, REMOTE_ACCESS_ACCOUNT};
use serde_json::json;
use std::collections::BTreeSet;

/// Flags of `allow`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  link-cli --context west allow --service-account-name partner | kubectl --context west apply -f -
  link-cli --context west link --cluster-name west --service-account-name partner > west-for-partner.yaml
  link-cli --context west allow list"
)]
pub struct AllowArgs {
    #[command(subcommand)]
    command: Option<AllowCommand>,
    /// Name of the account; give each linked cluster its own to be able to end its access alone
    #[arg(long, value_name = "NAME", required = true, value_parser = dns_label)]
    service_account_name: Option<String>,
    /// Do not ask the cluster whether the account exists
    #[arg(long)]
    ignore_cluster: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum AllowCommand {
    /// Show the accounts that other clusters may link with
    List(ListArgs),
    /// Print what `kubectl delete -f -` must remove to end an account's access, at the API and at the gateway
    Revoke(RevokeArgs),
}

/// Flags of `allow list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context west allow list
  link-cli --context west allow list -o json")]
struct ListArgs {
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<JsonForm>,
}

/// Flags of `allow revoke`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context west allow revoke --service-account-name partner | kubectl --context west delete -f -
  link-cli --context west allow revoke --service-account-name partner --yes")]
struct RevokeArgs {
    /// Name of the account
    #[arg(long, value_name = "NAME", value_parser = dns_label)]
    service_account_name: String,
    #[command(flatten)]
    removal: Removal,
}

/// Runs `allow`.
///
/// # Errors
/// When the account exists already, or the cluster cannot be asked.
pub async fn run(global: &Global, args: AllowArgs) -> anyhow::Result<Outcome> {
    match args.command {
        Some(AllowCommand::List(list)) => return self::list(global, &list).await,
        Some(AllowCommand::Revoke(revoke)) => return self::revoke(global, &revoke).await,
        None => {}
    }
    let name = args.service_account_name.as_deref().context("--service-account-name names no account")?;
    if !args.ignore_cluster {
        let cluster = Cluster::connect(global, None).await?;
        if cluster.get(&cluster.ours::<ServiceAccount>(), name, "ServiceAccount").await?.is_some() {
            bail!(
                "Service account with name {name} already exists, use --ignore-cluster for force operation"
            );
        }
    }
    let objects = rights::link_account(&global.linkspan_namespace, name);
    output::print(&output::documents(&objects, args.output, None))?;
    Ok(Outcome::Well)
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    name: String,
    created: String,
    /// Whether a token that never ends was made for it.
    long_lived_token: bool,
}

async fn list(global: &Global, args: &ListArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let accounts = accounts(&cluster).await?;
    if accounts.is_empty() {
        output::note(&format!(
            "no cluster may link in context {}: `link-cli allow --help` says how to make an account",
            cluster.context
        ));
    }
    output::print(&render(&accounts, args.output))?;
    Ok(Outcome::Well)
}

async fn accounts(cluster: &Cluster) -> anyhow::Result<Vec<Account>> {
    let params = ListParams::default().labels(&format!("{LINK_ACCOUNT}=true"));
    let found = cluster.list(&cluster.ours::<ServiceAccount>(), &params, "ServiceAccounts").await?;
    // Names tell; the Secrets' contents are none of our business.
    let secrets = cluster.ours::<Secret>().list_metadata(&ListParams::default()).await;
    let secrets: BTreeSet<String> =
        secrets.map(|list| list.items.iter().map(ResourceExt::name_any).collect()).unwrap_or_default();
    let mut accounts: Vec<Account> = found
        .iter()
        .map(|account| Account {
            name: account.name_any(),
            created: account.creation_timestamp().map(|time| format!("{:.0}", time.0)).unwrap_or_default(),
            long_lived_token: secrets.contains(&rights::token_secret(&account.name_any())),
        })
        .collect();
    accounts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(accounts)
}

fn render(accounts: &[Account], form: Option<JsonForm>) -> String {
    if form == Some(JsonForm::Json) {
        let row = |account: &Account| json!({"name": account.name, "created": account.created, "longLivedToken": account.long_lived_token});
        return output::json(&accounts.iter().map(row).collect::<Vec<_>>());
    }
    let columns =
        ["ACCOUNT", "CREATED", "LONG_LIVED_TOKEN"].map(|head| Column { head, width: 0, right: false });
    let cells = |account: &Account| {
        let token = if account.long_lived_token { "yes" } else { "no" };
        vec![account.name.clone(), account.created.clone(), token.to_owned()]
    };
    output::table(&columns, &accounts.iter().map(cells).collect::<Vec<_>>())
}

async fn revoke(global: &Global, args: &RevokeArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let name = &args.service_account_name;
    let account = cluster.get(&cluster.ours::<ServiceAccount>(), name, "ServiceAccount").await?;
    if let Some(account) = &account
        && account.labels().get(LINK_ACCOUNT).map(String::as_str) != Some("true")
    {
        bail!(
            "service account {name} is not for linked clusters: it has no label {LINK_ACCOUNT}=true; `link-cli allow list` shows those that are"
        );
    }
    let mut keys = vec![];
    for key in rights::link_account_keys(&cluster.namespace, name) {
        if cluster.find(&key).await?.is_some() {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        output::note(&format!("nothing to revoke: no account {name} in context {}", cluster.context));
    } else if name == REMOTE_ACCESS_ACCOUNT {
        output::note(&format!(
            "warning: every cluster that was linked without --service-account-name signs in as {name}; applying the output of `link-cli install` again makes a new account of this name, which old links cannot use"
        ));
    }
    // The account first: with it access ends, whatever happens afterwards.
    args.removal.carry_out(&cluster, keys, "ServiceAccount").await?;
    Ok(Outcome::Well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_shown_with_tokens_that_never_end() {
        let account = |name: &str, long_lived_token| Account {
            name: name.into(),
            created: "2026-01-02T03:04:05Z".into(),
            long_lived_token,
        };
        let all = [account("partner", true), account("x", false)];
        assert_eq!(
            render(&all, None),
            "ACCOUNT  CREATED               LONG_LIVED_TOKEN  \n\
             partner  2026-01-02T03:04:05Z  yes               \n\
             x        2026-01-02T03:04:05Z  no                \n"
        );
        assert!(render(&all, Some(JsonForm::Json)).contains("\"longLivedToken\": true"));
    }
}
