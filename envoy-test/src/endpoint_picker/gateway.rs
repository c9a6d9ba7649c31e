//! The Envoy in front of an endpoint picker, set up as the picker's own charts do it where there is no other gateway: `ext_proc`
//! streams headers and bodies both ways, and the picked server is where the pick header says.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};

use crate::envoy::Configuration;
use crate::envoy::configuration::FilterPosition;

const SERVERS: &str = "vllm-llama2-7b";
const PICKER: &str = "ext_proc";
const PICK_HEADER: &str = "x-gateway-destination-endpoint";
const LISTENER: &str = "/static_resources/listeners/0";
const CONNECTION_MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const CLUSTERS: &str = "/static_resources/clusters";
/// As in its charts.
const BUFFER_BYTES: u64 = 32 << 10;
const STREAM_WINDOW_BYTES: u64 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u64 = 1 << 20;
const AT_ONCE_MAX: u64 = 40_000;

pub(super) fn configuration(picker: SocketAddr) -> Result<Configuration> {
    let mut configuration = Configuration::shipped("stop-iteration")?;
    configuration.remove_plugin();
    configuration.insert_filter(FilterPosition::First, filter());
    configuration.at(LISTENER)["per_connection_buffer_limit_bytes"] = BUFFER_BYTES.into();
    let manager = configuration.at(CONNECTION_MANAGER);
    manager["access_log"] = json!([]);
    // A retry would go to the same server, which is what its charts have none for.
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"] =
        json!({"cluster": SERVERS, "timeout": "0s"});
    *configuration.at(CLUSTERS) = json!([servers_cluster(), picker_cluster()]);
    configuration.set_endpoints(PICKER, &[picker]);
    Ok(configuration)
}

fn filter() -> Value {
    const MODES: [(&str, &str); 3] =
        [("header_mode", "SEND"), ("body_mode", "FULL_DUPLEX_STREAMED"), ("trailer_mode", "SEND")];
    let modes: Value = ["request", "response"]
        .into_iter()
        .flat_map(|side| MODES.map(|(name, mode)| (format!("{side}_{name}"), Value::from(mode))))
        .collect();
    json!({
        "name": "envoy.filters.http.ext_proc",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "failure_mode_allow": true,
            "grpc_service": {"envoy_grpc": {"cluster_name": PICKER}, "timeout": "10s"},
            "processing_mode": modes,
            "message_timeout": "1000s",
        },
    })
}

fn servers_cluster() -> Value {
    json!({
        "name": SERVERS,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "1000s",
        "circuit_breakers": circuit_breakers(),
        "original_dst_lb_config": {"use_http_header": true, "http_header_name": PICK_HEADER},
    })
}

fn picker_cluster() -> Value {
    let http2 = json!({
        "initial_stream_window_size": STREAM_WINDOW_BYTES,
        "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
    });
    json!({
        "name": PICKER,
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "10s",
        "circuit_breakers": circuit_breakers(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": http2},
            },
        },
    })
}

fn circuit_breakers() -> Value {
    json!({"thresholds": [{
        "max_connections": AT_ONCE_MAX,
        "max_pending_requests": AT_ONCE_MAX,
        "max_requests": AT_ONCE_MAX,
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::{EnvoySettings, validate};

    #[test]
    fn envoy_takes_the_configuration() {
        let configuration = configuration(SocketAddr::from(([127, 0, 0, 1], 9002))).unwrap();
        let output = validate(&EnvoySettings::new(configuration)).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
