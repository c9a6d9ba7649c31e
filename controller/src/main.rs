//! Runs the controller: watches, and for as long as it holds the Lease, writes.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use inference_picker_config::findings::Severity;
use inference_picker_config::last_good::LastGood;
use inference_picker_config::plan::{self, Target};
use inference_picker_config::settings::Settings;
use inference_picker_controller::apply::Writer;
use inference_picker_controller::arguments::Arguments;
use inference_picker_controller::lease::{Election, RENEW_EVERY};
use inference_picker_controller::log::{Level, log};
use inference_picker_controller::memory::Memory;
use inference_picker_controller::serve::{Counters, serve};
use inference_picker_controller::store::Store;
use kube::Client;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Changes that come close together are one.
const SETTLE: Duration = Duration::from_millis(50);
/// What was made is written again after this time, in case somebody has changed it.
const REWRITE_EVERY: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let client = Client::try_default().await.context("finding the API server")?;
    let (store, counters) = (Arc::new(Store::default()), Arc::new(Counters::default()));
    let listener = TcpListener::bind(arguments.listen).await.context("opening the health endpoint")?;
    tokio::spawn(serve(listener, Arc::clone(&store), Arc::clone(&counters)));
    store.watch(&client);
    let mut election = Election::new(&client, &arguments.lease_namespace, &arguments.identity);
    let mut controller = Controller::new(arguments, client, Arc::clone(&store), counters);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut renew = tokio::time::interval(RENEW_EVERY);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = renew.tick() => controller.elect(&mut election).await,
            () = store.changed.notified() => {
                tokio::time::sleep(SETTLE).await;
                controller.is_due = true;
            }
        }
        if election.is_held() && store.is_ready() {
            controller.work().await;
        }
    }
    election.release().await;
    Ok(())
}

struct Controller {
    arguments: Arguments,
    client: Client,
    store: Arc<Store>,
    counters: Arc<Counters>,
    /// What was last good, and where that is written; read anew by whoever begins to work.
    last_good: Option<(Memory, LastGood)>,
    /// What was written last, and when.
    written: Option<(Vec<String>, Instant)>,
    /// Namespaces in which something may have been made.
    namespaces: HashSet<String>,
    is_due: bool,
}

impl Controller {
    fn new(arguments: Arguments, client: Client, store: Arc<Store>, counters: Arc<Counters>) -> Controller {
        let namespaces = HashSet::from([arguments.gateway.gateway_namespace.clone()]);
        Controller {
            arguments,
            client,
            store,
            counters,
            last_good: None,
            written: None,
            namespaces,
            is_due: true,
        }
    }

    async fn elect(&mut self, election: &mut Election) {
        let was_held = election.is_held();
        if let Err(error) = election.look().await {
            log(Level::Warn, "the Lease could not be looked at", json!({"error": format!("{error:#}")}));
        }
        let is_held = election.is_held();
        self.counters.is_leader.store(is_held, Ordering::Relaxed);
        if was_held != is_held {
            log(
                Level::Info,
                if is_held { "this controller works now" } else { "another controller works now" },
                json!({}),
            );
            (self.is_due, self.written, self.last_good) = (true, None, None);
        }
    }

    /// Does what is due. What fails is due again.
    async fn work(&mut self) {
        let is_old = self.written.as_ref().is_none_or(|(_, since)| since.elapsed() >= REWRITE_EVERY);
        if !self.is_due && !is_old {
            return;
        }
        Counters::add(&self.counters.plans);
        match self.reconcile().await {
            Ok(is_done) => self.is_due = !is_done,
            Err(error) => {
                Counters::add(&self.counters.failures);
                log(
                    Level::Warn,
                    "what there should be could not be written",
                    json!({"error": format!("{error:#}")}),
                );
                (self.is_due, self.written) = (true, None);
            }
        }
    }

    /// Writes what there should be. Gives whether nothing is left to be done.
    async fn reconcile(&mut self) -> anyhow::Result<bool> {
        let objects = self.store.all();
        let settings = Settings::read(self.arguments.options.settings.as_deref())?;
        let own = (!self.arguments.only_annotated_gateways).then_some(&self.arguments.gateway);
        let mut targets = plan::targets(own, &self.arguments.options, &objects);
        for Target { gateway, .. } in &mut targets {
            gateway.plugin_url.clone_from(&self.arguments.gateway.plugin_url);
        }
        self.namespaces.extend(targets.iter().map(|target| target.gateway.gateway_namespace.clone()));
        let resources = plan::resources(&objects);
        let (memory, last_good) = match &mut self.last_good {
            Some(known) => known,
            None => {
                let namespace = &self.arguments.lease_namespace;
                self.last_good.insert(Memory::read(&self.client, namespace).await?)
            }
        };
        let plan = plan::plan(&resources, last_good, &self.arguments.options, &settings, &targets)?;
        let refused = plan.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let refused: HashSet<_> = refused.filter_map(|finding| finding.resource.as_ref()).collect();
        self.counters.refused.store(refused.len() as u64, Ordering::Relaxed);
        let writer = Writer { client: &self.client, counters: &self.counters };
        let is_same = self
            .written
            .as_ref()
            .is_some_and(|(texts, since)| *texts == plan.texts && since.elapsed() < REWRITE_EVERY);
        if !is_same {
            let made = writer.apply(&plan.texts).await?;
            if plan.is_whole {
                writer.clean_up(&made, &self.namespaces, &objects).await?;
            }
            log(
                Level::Info,
                "written",
                json!({"objects": made.len(), "refused": refused.len(), "resources": resources.len()}),
            );
            self.written = Some((plan.texts, Instant::now()));
        }
        memory.write(last_good).await?;
        // Where no gateway is configured there is no status to write.
        if targets.is_empty() {
            return Ok(true);
        }
        Ok(writer.write_statuses(&objects, &plan.findings).await)
    }
}
