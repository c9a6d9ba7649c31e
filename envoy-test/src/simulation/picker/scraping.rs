//! A gateway's companion service: the core's scraper, for which the engines print their gauges as vLLM does, or SGLang.

use std::time::Duration;

use inference_picker::config::{Config, Pool};
use inference_picker::load::LoadTracker;
use inference_picker::pool::{Discovered, Snapshot};
use inference_picker::scrape::{Schedule, Scraper};

use super::setting::{TICK, pod_at};
use super::shared_data::{Place, SharedData};
use crate::model_server::engine::{Engine, Eviction};

/// What the companion service keeps.
pub struct Scraping {
    scraper: Scraper,
    loads: LoadTracker,
    pub place: Place,
    pub published: Option<Snapshot>,
    pub next_tick: Duration,
}

impl Scraping {
    pub fn new(config: &Config, pool: &Pool) -> Scraping {
        let addresses = pool.endpoints.iter().flatten().copied();
        let schedule = Schedule::of(config, pool);
        let mut scraper = Scraper::new(pool.model_server, schedule, config.max_consecutive_failures);
        scraper.follow(&Discovered::at(addresses.clone()), 0);
        let mut loads = LoadTracker::default();
        for address in addresses {
            loads.id(address);
        }
        Scraping { scraper, loads, place: Place::new(u64::MAX), published: None, next_tick: Duration::ZERO }
    }

    pub fn tick(&mut self, engines: &[Engine], shared: &mut SharedData, now_ms: u64) {
        self.next_tick += TICK;
        self.place.read(shared, &mut self.loads, now_ms);
        self.scraper.observe_in_flight(self.loads.all_in_flight());
        for address in self.scraper.due(now_ms) {
            let page = metrics_page(&engines[pod_at(address)]);
            let in_flight = self.loads.in_flight_at(&address);
            let news = self.scraper.answered(address, Ok(page.as_bytes()), in_flight, now_ms);
            assert_eq!(news, None, "a scrape of an engine succeeds");
        }
        if let Some(snapshot) = self.scraper.take_snapshot() {
            self.published = Some(snapshot);
        }
    }
}

/// What the core reads of a server's page.
fn metrics_page(engine: &Engine) -> String {
    match engine.settings().eviction {
        Eviction::Block => page_of_vllm(engine),
        Eviction::Run => page_of_sglang(engine),
    }
}

/// Of SGLang 0.5.23. Tokens are counted here when a request is scheduled; there, when it has ended.
fn page_of_sglang(engine: &Engine) -> String {
    let (gauges, cache, settings) = (engine.gauges(), engine.cache_totals(), engine.settings());
    format!(
        "sglang:num_queue_reqs {}\nsglang:num_running_reqs {}\nsglang:token_usage {}\n\
         sglang:prompt_tokens_total {}\nsglang:cached_tokens_total {}\n\
         sglang:max_total_num_tokens {}\nsglang:page_size {}\n\
         sglang:lora_pool_slots_total {}\nsglang:lora_pool_slots_used {}\n",
        gauges.waiting,
        gauges.running,
        gauges.kv_cache_usage,
        cache.prefix_queried_tokens,
        cache.prefix_hit_tokens,
        settings.kv_cache_tokens(),
        settings.block_tokens,
        settings.lora_slots,
        gauges.active_adapters.len(),
    )
}

fn page_of_vllm(engine: &Engine) -> String {
    let (gauges, cache, settings) = (engine.gauges(), engine.cache_totals(), engine.settings());
    let adapters: Vec<&str> = gauges.active_adapters.iter().map(String::as_str).collect();
    format!(
        "vllm:num_requests_waiting {}\nvllm:num_requests_running {}\nvllm:kv_cache_usage_perc {}\n\
         vllm:prefix_cache_queries_total {}\nvllm:prefix_cache_hits_total {}\n\
         vllm:generation_tokens_total {}\n\
         vllm:cache_config_info{{block_size=\"{}\",num_gpu_blocks=\"{}\"}} 1\n\
         vllm:lora_requests_info{{max_lora=\"{}\",running_lora_adapters=\"{}\"}} 1\n",
        gauges.waiting,
        gauges.running,
        gauges.kv_cache_usage,
        cache.prefix_queried_tokens,
        cache.prefix_hit_tokens,
        engine.generated_tokens(),
        settings.block_tokens,
        settings.blocks,
        settings.lora_slots,
        adapters.join(","),
    )
}

#[cfg(test)]
mod tests {
    use inference_picker::metrics::{ModelServer, read};

    use super::*;
    use crate::model_server::engine::{EngineRequest, EngineSettings};

    #[test]
    fn the_core_reads_the_gauges_of_an_engine() {
        let mut engine = Engine::new(EngineSettings { sequences_max: 1, ..EngineSettings::default() });
        for _ in 0..3 {
            let request =
                EngineRequest { prompt: vec![7; 600], output_tokens: 9, adapter: None, cache_salt: None };
            engine.submit(Duration::ZERO, request).unwrap();
        }
        engine.advance(Duration::from_millis(100));
        let metrics = read(ModelServer::Vllm, metrics_page(&engine).as_bytes()).unwrap();
        assert_eq!((metrics.running, metrics.waiting), (1, 2));
        assert!(metrics.kv_cache_utilization.unwrap() > 0.0);
        assert_eq!(metrics.prefix_cache_queries, Some(600.0));
        assert_eq!(metrics.cache.unwrap().capacity_tokens, 60_000);
    }
}
