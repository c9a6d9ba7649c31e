//! Which of several controllers works: the holder of a Lease.
//!
//! The holder renews it every [`RENEW_EVERY`]. Another takes it when it has seen no renewal for [`LASTS`], by its own clock, so
//! that clocks need not agree. Each write names the version that it was made from, so that of two the API server takes one.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::time::Instant;

/// The Lease's name.
const NAME: &str = "inference-picker-controller";
/// Between two renewals, or two looks.
pub const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How long a Lease lasts that is not renewed.
pub const LASTS: Duration = Duration::from_secs(10);

/// What this controller knows of the Lease.
pub struct Election {
    api: Api<Lease>,
    namespace: String,
    identity: String,
    /// The version that was seen last, and since when.
    seen: Option<(String, Instant)>,
    /// When it was last this controller's, for sure.
    held: Option<Instant>,
}

impl Election {
    /// Nobody has looked yet.
    pub fn new(client: &Client, namespace: &str, identity: &str) -> Election {
        Election {
            api: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
            seen: None,
            held: None,
        }
    }

    /// Whether it is this controller that works. Where the API server cannot be asked, the Lease lasts for its time.
    pub fn is_held(&self) -> bool {
        self.held.is_some_and(|since| since.elapsed() < LASTS)
    }

    /// Renews the Lease, or takes it if nobody has it.
    ///
    /// # Errors
    /// Where the API server does not answer as it should.
    pub async fn look(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let known = self.api.get_opt(NAME).await.context("reading the Lease")?;
        let Some(lease) = known else {
            let created = self.api.create(&PostParams::default(), &self.lease(None, &self.identity)).await;
            return self.note(created, started);
        };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.has_ended(&lease) {
            self.held = None;
            return Ok(());
        }
        let version = lease.metadata.resource_version;
        let replaced =
            self.api.replace(NAME, &PostParams::default(), &self.lease(version, &self.identity)).await;
        self.note(replaced, started)
    }

    /// Gives it back, so that another need not wait.
    pub async fn release(&mut self) {
        if !self.is_held() {
            return;
        }
        self.held = None;
        if let Ok(Some(lease)) = self.api.get_opt(NAME).await {
            let free = self.lease(lease.metadata.resource_version, "");
            // Who does not get it this way gets it when it has ended.
            let _ = self.api.replace(NAME, &PostParams::default(), &free).await;
        }
    }

    /// Whether nobody has renewed it for as long as it lasts.
    fn has_ended(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= LASTS,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn note(&mut self, written: kube::Result<Lease>, started: Instant) -> anyhow::Result<()> {
        match written {
            Ok(_) => self.held = Some(started),
            Err(Error::Api(status)) if status.code == 409 => self.held = None,
            Err(error) => return Err(error).context("writing the Lease"),
        }
        Ok(())
    }

    fn lease(&self, version: Option<String>, holder: &str) -> Lease {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(self.namespace.clone()),
            resource_version: version,
            ..ObjectMeta::default()
        };
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(LASTS.as_secs() as i32),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }
}
