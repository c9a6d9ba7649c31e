//! The request's way in: its headers, its body, what is decided, and what of it is changed.

use std::borrow::Cow;

use proxy_wasm::types::Action;

use super::account::Account;
use super::anew::Anew;
use super::{PICK_HEADER, PREFILL_HEADER, RANK_HEADER, State, Stream, TOKEN_HEADER, act};
use crate::config::{PickTo, StickyBy, TenantBy};
use crate::decide::ResolvedRequest;
use crate::first_pass::FirstPass;
use crate::header_pairs::HeaderPairs;
use crate::limits::Limit;
use crate::log_fields::LogField;
use crate::metrics::{LOAD_FORMAT, LOAD_FORMAT_HEADER};
use crate::openai::{
    Api, ApiError, ExpectedBody, InferenceRequest, Stored, apply_edits, include_usage, input_file,
    is_model_list_path, model_edits, named_in,
};
use crate::picker::Outcome;
use crate::plugin::calls::{headers_of, publish, publish_if, warn};
use crate::plugin::host::{self, Buffer, Headers};
use crate::plugin::own_answers::answer_models;
use crate::plugin::{FIRST_PASS, peers};
use crate::promise::{self, Promise, Promised};
use crate::sessions::Name;

/// The header that names the model to Envoy's routing, where another pool than the route's serves it.
const MODEL_HEADER: &str = "x-gateway-model-name";
/// The header that names the pool to Envoy's routing, where a fallback serves the request.
const POOL_HEADER: &str = "x-gateway-pool-name";
/// The headers by which a host or a pool is chosen: by Envoy, and by the sidecars of servers that divide the work, of which the
/// plugin itself sets the first.
const CHOICES: [&str; 9] = [
    PICK_HEADER,
    MODEL_HEADER,
    POOL_HEADER,
    PREFILL_HEADER,
    RANK_HEADER,
    "x-prefiller-url",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
];
/// The headers that name a request's objective, and its tenant: the name, and the one that it had before.
const OBJECTIVE_HEADERS: [&str; 2] = ["x-llm-d-inference-objective", "x-gateway-inference-objective"];
const FAIRNESS_HEADERS: [&str; 2] = ["x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id"];
/// The header by which clients ask for compressed answers.
const ENCODING_HEADER: &str = "accept-encoding";
/// The headers that promise a request its first token within so many milliseconds, and each further one: the name, and the one
/// that it had before.
const FIRST_TOKEN_HEADERS: [&str; 2] = ["x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"];
const PER_TOKEN_HEADERS: [&str; 2] = ["x-llm-d-slo-tpot-ms", "x-slo-tpot-ms"];
/// Bytes of a header's value that distinguish one user from another; what follows does not count.
const MAX_USER_BYTES: usize = 256;
/// Bytes of the name that a client gives to its objective or tenant; what follows does not count.
const MAX_GIVEN_NAME_BYTES: usize = 256;
/// The share of `maxBodyBytes` up to which a body is held that may pass unread and does not announce its length: Envoy, whose
/// own limit is about the same, refuses what is beyond that.
const UNANNOUNCED_SHARE: usize = 2;

impl Stream {
    /// The request's headers are here.
    pub(super) fn request_begins(&mut self, end_of_stream: bool) -> Action {
        let cluster = host::property("xds\0cluster_name").ok().flatten().unwrap_or_default();
        if peers::is_route_of(self.worker.borrow().config(), &cluster) {
            let headers = headers_of(Headers::Request);
            warn("the answer", peers::answer(&headers.value(":path").unwrap_or_default()));
            return Action::Pause;
        }
        // Whatever the route: no client chooses its host, or its pool.
        let unchoose = |name: &&str| warn(name, host::remove_header(Headers::Request, name));
        let Some((headers, pool)) = self.headers_and_pool(&cluster) else {
            CHOICES.iter().for_each(unchoose);
            return Action::Continue;
        };
        // Here headers are read anyway, so that they are not there costs no call.
        CHOICES.iter().filter(|name| headers.value(name).is_some()).for_each(unchoose);
        self.read_head(&headers);
        // Of a request that was begun anew, the plugin has set them.
        self.is_misrouted = !self.is_begun_anew()
            && [MODEL_HEADER, POOL_HEADER].iter().any(|name| headers.value(name).is_some());
        self.ask_for_load(pool, &headers);
        self.read_objective(&headers);
        self.read_stored(&headers);
        self.expected = self.expected_body(&headers, end_of_stream);
        if self.expected.is_some() {
            if headers.ask_for_upgrade() {
                return self.refuse(&ApiError::upgrade_not_served());
            }
            return self.start_reading(pool, &headers, end_of_stream);
        }
        if self.worker.borrow().config().answer_models && is_model_list(&headers) {
            return answer_models(self.worker.borrow().config());
        }
        self.pass_unread(pool)
    }

    /// Notes what the path says of something that servers store.
    fn read_stored(&mut self, headers: &HeaderPairs) {
        self.stored = Stored::at(&headers.value(":path").unwrap_or_default());
        let is_made = self.stored == Some(Stored::Collection);
        self.may_store = is_made && headers.value(":method").as_deref() == Some(b"POST");
        if self.may_store && headers.value(ENCODING_HEADER).is_some() {
            // The id stands in the answer, which is not read if it is compressed.
            warn(ENCODING_HEADER, host::remove_header(Headers::Request, ENCODING_HEADER));
        }
        if let Some(id) = self.stored.as_ref().and_then(Stored::id) {
            self.conversation = Some(self.worker.borrow_mut().stored(id, host::now_ms()));
        }
    }

    /// The pool where the conversation is that a request without a model belongs to; otherwise the route's, to which the
    /// request then goes anyway.
    fn pool_of_conversation(&self, route_pool: usize) -> usize {
        let last = self.conversation.and_then(|conversation| conversation.last);
        let pool = last.and_then(|last| self.worker.borrow().picker.pool_of_key(last.endpoint, route_pool));
        pool.unwrap_or(route_pool)
    }

    /// Has the route chosen anew that leads to this pool, if a model leads there.
    fn change_route_to(&self, pool: usize) -> bool {
        let worker = self.worker.borrow();
        let config = worker.config();
        let Some(model) = config.models.iter().find(|model| model.pool == pool) else { return false };
        if config.pick_to == PickTo::FilterState {
            publish(LogField::Model.name(), &model.name);
        }
        self.change_route(&model.name);
        true
    }

    /// Has the endpoint report its load with the answer, where that is configured and the client does not ask itself.
    fn ask_for_load(&mut self, pool: usize, headers: &HeaderPairs) {
        let is_configured =
            self.worker.borrow().config().pools.get(pool).is_some_and(|pool| pool.answers_tell_load);
        let is_asked = headers.value(LOAD_FORMAT_HEADER).is_some();
        // If this was asked in the first pass, the header still says so.
        let was_asked = self.first_pass.as_ref().is_some_and(|first| first.asks_for_load);
        self.asks_for_load = was_asked || is_configured && !is_asked;
        if self.asks_for_load && !is_asked {
            warn(LOAD_FORMAT_HEADER, host::set_header(Headers::Request, LOAD_FORMAT_HEADER, LOAD_FORMAT));
        }
    }

    /// Notes the request's objective, promise and tenant, where headers are trusted, and else removes them.
    fn read_objective(&mut self, headers: &HeaderPairs) {
        let worker = self.worker.borrow();
        let config = worker.config();
        if !config.trust_headers {
            let promises = FIRST_TOKEN_HEADERS.iter().chain(&PER_TOKEN_HEADERS);
            let given = OBJECTIVE_HEADERS.iter().chain(&FAIRNESS_HEADERS).chain(promises);
            let given = given.filter(|name| headers.value(name).is_some());
            given.for_each(|name| warn(name, host::remove_header(Headers::Request, name)));
        }
        let trusted = |names: &[&str]| {
            let mut trusted = names.iter().filter(|_| config.trust_headers);
            trusted.find_map(|name| headers.value(name))
        };
        self.objective = trusted(&OBJECTIVE_HEADERS).map(|name| text(&name));
        let promised_us = |names: &[&str]| trusted(names).and_then(|value| promise::microseconds(&value));
        self.promise = Promise {
            first_token_us: promised_us(&FIRST_TOKEN_HEADERS),
            per_token_us: promised_us(&PER_TOKEN_HEADERS),
        };
        let tenant = match config.fairness.as_ref().map(|fairness| &fairness.by) {
            Some(TenantBy::FairnessId) => trusted(&FAIRNESS_HEADERS),
            Some(TenantBy::Header(name)) => headers.value(name),
            Some(TenantBy::User) | None => None,
        };
        self.tenant = tenant.map(|tenant| text(&tenant));
    }

    /// What the body is to be read as, if it is to be read.
    fn expected_body(&self, headers: &HeaderPairs, end_of_stream: bool) -> Option<ExpectedBody> {
        if headers.value(":method").as_deref() != Some(b"POST") {
            return None;
        }
        let path = headers.value(":path").unwrap_or_default();
        let encoding = headers.value("content-encoding");
        let expected =
            ExpectedBody::of(&path, headers.value("content-type").as_deref(), encoding.as_deref())?;
        // Of a form only the model is of interest, and that only where models are configured.
        let worker = self.worker.borrow();
        let names_models = !worker.config().models.is_empty() || worker.config().rewrites_models();
        let is_of_use = !expected.is_form() || names_models;
        // What may pass is not waited for where it does not come, or does not end.
        let is_there = expected.is_certain() || !(end_of_stream || headers.ask_for_upgrade());
        (is_of_use && is_there).then_some(expected)
    }

    /// It is not read: the least loaded endpoint takes it.
    fn pass_unread(&mut self, route_pool: usize) -> Action {
        self.account = None;
        let now_ms = host::now_ms();
        let mut pool = self.pool_of_conversation(route_pool);
        if pool != route_pool && !self.change_route_to(pool) {
            pool = route_pool;
        }
        let mut worker = self.worker.borrow_mut();
        let decision = worker.decide_unread(pool, self.is_misrouted, self.conversation, now_ms);
        drop(worker);
        act(&self.state, &self.worker, pool, decision, now_ms)
    }

    /// `size` bytes of the request's body are here.
    pub(super) fn request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let pool = match self.pool_being_read() {
            Ok(pool) => pool,
            Err(action) => return action,
        };
        if size > self.most_held() {
            return self.too_large(pool);
        }
        if end_of_stream { self.finish_reading(pool) } else { Action::Pause }
    }

    fn must_be_read(&self) -> bool {
        self.expected.as_ref().is_some_and(ExpectedBody::is_certain)
    }

    /// How many bytes of the body are held until it is whole.
    fn most_held(&self) -> usize {
        let limit = self.worker.borrow().config().max_body_bytes;
        if self.must_be_read() || self.has_length { limit } else { limit / UNANNOUNCED_SHARE }
    }

    /// The body is larger than what is held.
    fn too_large(&mut self, pool: usize) -> Action {
        *self.state.borrow_mut() = State::Idle;
        if !self.must_be_read() {
            return self.pass_unread(pool);
        }
        let limit = self.worker.borrow().config().max_body_bytes;
        self.refuse(&ApiError::body_too_large(limit))
    }

    /// The request ends with trailers.
    pub(super) fn request_trailers(&mut self) -> Action {
        match self.pool_being_read() {
            Ok(pool) => self.finish_reading(pool),
            Err(action) => action,
        }
    }

    /// Notes who asks, where a header says so.
    fn read_user(&mut self, headers: &HeaderPairs) {
        let mut worker = self.worker.borrow_mut();
        let Some(StickyBy::Header(name)) = &worker.config().sticky_by else { return };
        let Some(user) = headers.value(name) else { return };
        if user.len() > MAX_USER_BYTES {
            worker.recorder.record(|stats| [stats.limit_reached(Limit::UserBytes, 1)]);
        }
        self.user = Some(user.iter().copied().take(MAX_USER_BYTES).collect());
    }

    /// Notes which session the headers name, and the token that its client holds.
    fn read_session(&mut self, headers: &HeaderPairs) {
        let worker = self.worker.borrow();
        self.session = Name::in_headers(&worker.config().session_by, headers);
        let token = worker.config().session_token_key.as_ref().and_then(|_| headers.value(TOKEN_HEADER));
        self.token = token.map(Cow::into_owned);
    }

    /// The headers of a request that is to be read are here: wait for the body.
    fn start_reading(&mut self, pool: usize, headers: &HeaderPairs, end_of_stream: bool) -> Action {
        self.account = Some(Account::open());
        self.read_user(headers);
        self.read_session(headers);
        let announced = headers.value("content-length");
        self.has_length = announced.is_some();
        if announced.is_some_and(|length| self.is_too_large(&length)) {
            return self.too_large(pool);
        }
        if end_of_stream {
            return if self.is_begun_anew() { self.without_body(pool) } else { self.finish_reading(pool) };
        }
        *self.state.borrow_mut() = State::Reading { pool };
        let worker = self.worker.borrow();
        let config = worker.config();
        match config.pick_to {
            PickTo::Header => Action::Pause,
            PickTo::FilterState => {
                // What stands behind holds the headers of these requests, and of no others.
                publish("llm_awaits_body", "true");
                // Headers cannot be changed once the body comes; the buffer filter behind sets the length anew.
                if config.include_usage || config.rewrites_models() {
                    warn("content-length", host::remove_header(Headers::Request, "content-length"));
                }
                Action::Continue
            }
        }
    }

    /// It was begun anew, and Envoy has not kept its body.
    fn without_body(&self, pool: usize) -> Action {
        let name = self.worker.borrow().config().pools.get(pool).map(|pool| pool.name.clone());
        self.refuse(&ApiError::no_endpoint(&name.unwrap_or_default()))
    }

    /// Whether a body of this announced length is larger than what is held.
    fn is_too_large(&self, announced: &[u8]) -> bool {
        // Wider than `usize`, which here ends at 4 GiB.
        let length = str::from_utf8(announced).ok().and_then(|length| length.parse::<u64>().ok());
        length.is_none_or(|length| length > self.worker.borrow().config().max_body_bytes as u64)
    }

    /// The pool for which the body is being read; else what is done with more of the request.
    fn pool_being_read(&self) -> Result<usize, Action> {
        match *self.state.borrow() {
            State::Reading { pool } => Ok(pool),
            State::Waiting { .. } => Err(Action::Pause),
            State::Idle | State::Unpicked | State::Sent(_) => Err(Action::Continue),
        }
    }

    /// The whole body is here: read it, decide, act.
    fn finish_reading(&mut self, route_pool: usize) -> Action {
        *self.state.borrow_mut() = State::Idle;
        let Some(expected) = self.expected.clone() else { return Action::Continue };
        let limit = self.worker.borrow().config().max_body_bytes;
        let body = host::buffer(Buffer::RequestBody, limit).ok().flatten().unwrap_or_default();
        let request = match expected.read(&body) {
            Ok(Some(request)) => request,
            Ok(None) => {
                self.read_input_file(&body);
                return self.pass_unread(route_pool);
            }
            Err(error) => return self.refuse(&error),
        };
        self.read_conversation(&request);
        let mut resolved = match self.prepare(&request, route_pool) {
            Ok(resolved) => resolved,
            Err(error) => return self.refuse(&error),
        };
        if let Some(account) = &mut self.account {
            account.set_labels(self.worker.borrow_mut().labels(&resolved));
        }
        self.edit_body(&body, &request, &resolved);
        let pools = self.worker.borrow().config().models_named(&resolved.model).count();
        if resolved.fallback_of.is_some() {
            self.fallback = Some(resolved.pool);
            self.change_pool(resolved.pool);
        } else if resolved.pool != route_pool || self.is_begun_anew() || self.is_misrouted && pools > 0 {
            self.change_route(&resolved.model);
        }
        resolved.is_pool_guessed = self.is_misrouted && pools != 1 && resolved.fallback_of.is_none();
        resolved.generates = expected.api().generates();
        self.set_session(&mut resolved, &request);
        self.decide(resolved)
    }

    /// Notes what the body says of something that servers store: the response before, or the conversation.
    fn read_conversation(&mut self, request: &InferenceRequest<'_>) {
        if self.expected.as_ref().map(ExpectedBody::api) != Some(Api::Responses) {
            return;
        }
        for id in named_in(&request.names) {
            let conversation = self.worker.borrow_mut().stored(id.as_bytes(), host::now_ms());
            self.conversation =
                self.conversation.filter(|before| before.last.is_some()).or(Some(conversation));
        }
    }

    /// Whether it follows something that a server has stored, of which it is known where.
    pub(super) fn has_stored_place(&self) -> bool {
        self.conversation.is_some_and(|conversation| conversation.last.is_some())
    }

    /// Notes which file the batch is read from that the body asks for.
    fn read_input_file(&mut self, body: &[u8]) {
        if let Some(id) = input_file(body).filter(|_| self.may_store) {
            self.conversation = Some(self.worker.borrow_mut().stored(id.as_bytes(), host::now_ms()));
        }
    }

    /// Notes the conversation and the session that the request belongs to.
    fn set_session(&self, resolved: &mut ResolvedRequest, request: &InferenceRequest<'_>) {
        let mut worker = self.worker.borrow_mut();
        resolved.conversation = self.conversation;
        let name = Name::in_body(&worker.config().session_by, request, self.session);
        if name.is_some() || self.token.is_some() {
            worker.set_session(resolved, name, self.token.as_deref(), host::now_ms());
        }
    }

    /// Resolves the model, unless that was done before an internal redirect, and has log and routes know it.
    fn prepare(
        &mut self,
        request: &InferenceRequest<'_>,
        route_pool: usize,
    ) -> Result<ResolvedRequest, ApiError> {
        let fields = self.worker.borrow().config().publish;
        let asked = self.first_pass.as_ref().map_or(&*request.model, |first| &first.model);
        if !asked.is_empty() {
            publish_if(fields, LogField::Model, asked);
            publish_if(fields, LogField::MeshModel, asked);
        }
        let user = self.user_of(request);
        let can_begin_anew = self.can_begin_anew(request.body_bytes);
        let mut worker = self.worker.borrow_mut();
        worker.wake();
        let config = worker.config();
        let priority_in = |pool: usize| Some(config.priority_of(self.objective.as_ref()?, pool));
        let mut resolved = match &self.first_pass {
            Some(first) if first.head.is_some() => {
                let priority = priority_in(first.own_pool);
                worker.prepare_anew(request, first, user.as_deref(), priority, host::now_ms())?
            }
            Some(first) => worker.picker.prepare_again(request, first, route_pool),
            None => worker.picker.prepare(request, user.as_deref(), route_pool)?,
        };
        if let Some(objective) = self.objective.as_ref().filter(|_| !self.is_begun_anew()) {
            resolved.priority = worker.config().priority_of(objective, resolved.pool);
        }
        resolved.can_begin_anew = can_begin_anew;
        resolved.tenant = match worker.config().fairness.as_ref().map(|fairness| &fairness.by) {
            Some(TenantBy::User) => request.user.as_ref().map(|user| text(user.as_bytes())),
            _ => self.tenant.take(),
        };
        // A plugin that cannot know its own pool for sure cannot know that another one has to serve it; and what follows something that a
        // server has stored is served there or nowhere.
        if self.first_pass.is_none() && !self.is_misrouted && !self.has_stored_place() {
            resolved = worker.fall_back(resolved, request, user.as_deref(), host::now_ms());
        }
        let promise = self.promise.or(worker.config().promise_of(&resolved.model, resolved.pool));
        let began_ms = self.account.as_ref().map_or_else(host::now_ms, Account::started_ms);
        resolved.promised = (!promise.is_empty()).then_some(Promised { promise, began_ms });
        drop(worker);
        let target = resolved.target.as_deref().unwrap_or(&resolved.model);
        if !target.is_empty() {
            publish_if(fields, LogField::TargetModel, target);
        }
        Ok(resolved)
    }

    fn decide(&mut self, resolved: ResolvedRequest) -> Action {
        let (now_ms, pool) = (host::now_ms(), resolved.pool);
        let outcome = self.worker.borrow_mut().decide(self.id, &resolved, || self.state.clone(), now_ms);
        match outcome {
            Outcome::Decided(decision) => act(&self.state, &self.worker, pool, decision, now_ms),
            Outcome::Waits => {
                let anew = self.anew.as_ref().map(Anew::first_pass);
                *self.state.borrow_mut() = State::Waiting { pool, since_ms: now_ms, anew };
                Action::Pause
            }
        }
    }

    /// What distinguishes this user from others, where users are kept on one target.
    fn user_of(&self, request: &InferenceRequest<'_>) -> Option<Vec<u8>> {
        match self.worker.borrow().config().sticky_by {
            None => None,
            Some(StickyBy::Header(_)) => self.user.clone(),
            Some(StickyBy::User) => request.user.map(|user| user.as_bytes().to_vec()),
        }
    }

    /// Changes in the body what the servers are to see otherwise, and nothing else: the model's name, and that a
    /// stream's usage is asked for. What the first pass of an internal redirect has changed stands in it already.
    fn edit_body(&mut self, body: &[u8], request: &InferenceRequest<'_>, resolved: &ResolvedRequest) {
        let worker = self.worker.borrow();
        let mut edits = Vec::new();
        if let Some(name) = self.name_to_write(request, resolved) {
            edits = model_edits(request, name);
        }
        if let Some(target) = resolved.target.as_ref().filter(|_| worker.config().restore_requested_model) {
            self.answer.restore_model(target, &resolved.model);
        }
        let api = self.expected.as_ref().map(ExpectedBody::api).filter(|_| worker.config().include_usage);
        let usage = api.and_then(|api| include_usage(api, body, request));
        let hides_usage = usage.is_some() || self.first_pass.as_ref().is_some_and(|first| first.hides_usage);
        edits.extend(usage);
        if hides_usage {
            self.answer.hide_usage();
        }
        // Envoy has removed the length of a request that is begun anew.
        let sets_length =
            worker.config().pick_to == PickTo::Header && (self.has_length || self.is_begun_anew());
        let has_edits = !edits.is_empty();
        let edited = if has_edits { Cow::Owned(apply_edits(body, edits)) } else { Cow::Borrowed(body) };
        if has_edits {
            warn("the body", host::replace_buffer(Buffer::RequestBody, body.len(), &edited));
        }
        if sets_length && (has_edits || !self.has_length) {
            let length = edited.len().to_string();
            warn("content-length", host::set_header(Headers::Request, "content-length", &length));
        }
        drop(worker);
        let is_changed = has_edits || self.asks_for_load && self.first_pass.is_none();
        if !is_changed && !resolved.can_begin_anew {
            return;
        }
        let first = FirstPass {
            model: resolved.model.clone(),
            hides_usage,
            asks_for_load: self.asks_for_load,
            was_sent: resolved.was_sent,
            own_pool: resolved.fallback_of.unwrap_or(resolved.pool),
            pool: resolved.pool,
            head: None,
        };
        if is_changed {
            warn(FIRST_PASS, host::set_filter_state(FIRST_PASS, &first.to_bytes()));
        }
        self.keep_for_anew(resolved, first);
    }

    /// The model's name that is to be in the body and is not.
    fn name_to_write<'r>(
        &self,
        request: &InferenceRequest<'_>,
        resolved: &'r ResolvedRequest,
    ) -> Option<&'r str> {
        match &self.first_pass {
            None => resolved.target.as_deref(),
            Some(FirstPass { head: None, .. }) => None,
            // There is the name that the pool of the first pass has for it.
            Some(_) => {
                let name = resolved.target.as_ref().unwrap_or(&resolved.model);
                Some(name.as_str()).filter(|name| !name.is_empty() && **name != *request.model)
            }
        }
    }

    /// Another pool serves the request because its own is full or gone: has the route chosen anew, by the pool's name.
    fn change_pool(&self, pool: usize) {
        let worker = self.worker.borrow();
        let Some(pool) = worker.config().pools.get(pool) else { return };
        match worker.config().pick_to {
            PickTo::Header => warn(POOL_HEADER, host::set_header(Headers::Request, POOL_HEADER, &pool.name)),
            PickTo::FilterState => publish("llm_pool", &pool.name),
        }
        warn("the route", host::clear_route_cache());
    }

    /// Another pool than the route's serves the model: has the route chosen anew, by the model's name.
    fn change_route(&self, model: &str) {
        match self.worker.borrow().config().pick_to {
            PickTo::Header => warn(MODEL_HEADER, host::set_header(Headers::Request, MODEL_HEADER, model)),
            // Routes can match on filter state `wasm.llm_model`, which has been published.
            PickTo::FilterState => {}
        }
        warn("the route", host::clear_route_cache());
    }
}

/// Whether it is a GET that asks for the list of models.
fn is_model_list(headers: &HeaderPairs) -> bool {
    headers.value(":method").as_deref() == Some(b"GET")
        && is_model_list_path(&headers.value(":path").unwrap_or_default())
}

/// A client's name for something, of a bounded length.
fn text(name: &[u8]) -> String {
    let name: Vec<u8> = name.iter().copied().take(MAX_GIVEN_NAME_BYTES).collect();
    String::from_utf8_lossy(&name).into_owned()
}
