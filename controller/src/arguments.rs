//! The command line. What decides the configuration is the command's own, so that both give the same bytes.

use std::net::SocketAddr;

use clap::Parser;
use inference_picker_config::arguments::{Gateway, Options};

/// Keeps the Inference Picker plugin's configuration, and the Istio resources that carry it, in step with the
/// InferencePools, InferenceModels, InferenceObjectives and InferenceModelRewrites of a cluster.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// What decides the plugin's configuration.
    #[command(flatten)]
    pub options: Options,
    /// The gateway that is configured. Gateways of the Gateway API with the annotation `inference-picker/deployment` are,
    /// besides.
    #[command(flatten)]
    pub gateway: Gateway,
    /// Configures Gateways with the annotation alone
    #[arg(long)]
    pub only_annotated_gateways: bool,
    /// Where health (/healthz, /readyz) and metrics (/metrics) are
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// The namespace of the Lease by which one of several controllers is elected
    #[arg(long, value_name = "NAMESPACE", default_value = "inference-picker", env = "POD_NAMESPACE")]
    pub lease_namespace: String,
    /// This controller's name among several
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub identity: String,
}
