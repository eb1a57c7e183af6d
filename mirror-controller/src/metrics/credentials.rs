//! When tokens and this cluster's own certificates end, in seconds since 1970, and how often renewing failed.

use crate::{
    credentials::{AccessBoard, LinkAccess},
    issuer::Exchange,
};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};
use std::fmt;

/// Shows all of it for `links`.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    links: &[&str],
    board: &AccessBoard,
    exchange: &Exchange,
) -> fmt::Result {
    let known: Vec<(&str, LinkAccess)> =
        links.iter().map(|link| (*link, board.subscribe(link).borrow().clone())).collect();
    let (name, help) = (
        "linkspan_token_expiry_timestamp_seconds",
        "When the token for the target's API ends, in seconds since 1970",
    );
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (link, access) in &known {
        if let Some(end) = access.token_expires_at {
            metric.encode_family(&[("target_cluster_name", *link)])?.encode_gauge(&end.as_second())?;
        }
    }
    let help = "Certificates and tokens that were asked for in vain";
    let mut metric =
        encoder.encode_descriptor("linkspan_renewal_failures", help, None, MetricType::Counter)?;
    for (link, access) in &known {
        for (credential, count) in
            [("certificate", access.certificate_failures), ("token", access.token_failures)]
        {
            let labels = [("target_cluster_name", *link), ("credential", credential)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
    }
    let validity = exchange.validity();
    for (name, help, end) in [
        (
            "linkspan_ca_expiry_timestamp_seconds",
            "When this cluster's CA ends, in seconds since 1970; known to the leader",
            validity.ca,
        ),
        (
            "linkspan_server_certificate_expiry_timestamp_seconds",
            "When the gateways' server certificate ends, in seconds since 1970; known to the leader",
            validity.server,
        ),
    ] {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        if let Some(end) = end {
            metric.encode_gauge(&end.as_second())?;
        }
    }
    Ok(())
}
