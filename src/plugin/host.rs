//! The sole wrapper of the host: proxy-wasm ABI 0.2.1, and two calls of WASI, as functions that return a `Result`.
//!
//! The SDK's own wrappers panic on a status they do not expect and on header values that are not UTF-8; a panic
//! takes down every request of the worker. These take and return bytes, and hand every status to the caller.
//! Unsafe code is here and nowhere else: each block passes pointers and lengths of live slices, or takes over a
//! buffer that the host has had this module's allocator make.

#![allow(unsafe_code)]

use std::ptr::null_mut;

use crate::header_pairs::HeaderPairs;

/// The host refused a call; its status number (1 not found, 2 bad argument, 8 compare-and-swap mismatch, …).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostError(pub u32);

pub type HostResult<T> = Result<T, HostError>;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;

/// Headers of the request or the response.
#[derive(Debug, Clone, Copy)]
pub enum Headers {
    /// What the client sent.
    Request = 0,
    /// What the server answered.
    Response = 2,
    /// The answer to a call of the plugin's own.
    HttpCallResponse = 6,
}

/// Bytes that the host keeps.
#[derive(Debug, Clone, Copy)]
pub enum Buffer {
    /// The request's body, as far as it has come.
    RequestBody = 0,
    /// What the answer's body adds now.
    ResponseBody = 1,
    /// The body of the answer to a call of the plugin's own.
    HttpCallResponseBody = 4,
    /// The plugin's configuration.
    PluginConfiguration = 7,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy)]
pub enum LogLevel {
    /// For the operator to know.
    Info = 2,
    /// For the operator to look at.
    Warn = 3,
    /// For the operator to act on.
    Error = 4,
    /// The plugin is about to end.
    Critical = 5,
}

mod imports {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub fn proxy_get_property(
            path: *const u8,
            size: usize,
            data: *mut *mut u8,
            data_size: *mut usize,
        ) -> u32;
        pub fn proxy_set_property(path: *const u8, size: usize, data: *const u8, data_size: usize) -> u32;
        pub fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, data_size: *mut usize) -> u32;
        pub fn proxy_replace_header_map_value(
            map: u32,
            key: *const u8,
            size: usize,
            data: *const u8,
            data_size: usize,
        ) -> u32;
        pub fn proxy_remove_header_map_value(map: u32, key: *const u8, size: usize) -> u32;
        pub fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            most: usize,
            data: *mut *mut u8,
            data_size: *mut usize,
        ) -> u32;
        pub fn proxy_set_buffer_bytes(
            buffer: u32,
            start: usize,
            size: usize,
            data: *const u8,
            data_size: usize,
        ) -> u32;
        pub fn proxy_get_shared_data(
            key: *const u8,
            size: usize,
            data: *mut *mut u8,
            data_size: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub fn proxy_set_shared_data(
            key: *const u8,
            size: usize,
            data: *const u8,
            data_size: usize,
            cas: u32,
        ) -> u32;
        pub fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub fn proxy_set_effective_context(context: u32) -> u32;
        pub fn proxy_continue_stream(stream: u32) -> u32;
        pub fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
        pub fn proxy_increment_metric(id: u32, offset: i64) -> u32;
        pub fn proxy_record_metric(id: u32, value: u64) -> u32;
        pub fn proxy_call_foreign_function(
            name: *const u8,
            size: usize,
            argument: *const u8,
            argument_size: usize,
            data: *mut *mut u8,
            data_size: *mut usize,
        ) -> u32;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u16;
        pub fn random_get(buffer: *mut u8, size: usize) -> u16;
    }
}

fn check(status: u32) -> HostResult<()> {
    if status == OK { Ok(()) } else { Err(HostError(status)) }
}

/// Calls `import` with places for a returned buffer, and takes the buffer over. `None` where the host has none.
fn returned(import: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> HostResult<Option<Vec<u8>>> {
    let mut data: *mut u8 = null_mut();
    let mut size = 0;
    match import(&mut data, &mut size) {
        OK if data.is_null() => Ok(Some(Vec::new())),
        // The host made the buffer with the SDK's `proxy_on_memory_allocate`: a boxed slice of exactly `size` bytes.
        OK => Ok(Some(unsafe { Vec::from_raw_parts(data, size, size) })),
        NOT_FOUND => Ok(None),
        status => Err(HostError(status)),
    }
}

/// Writes one line to Envoy's log. A host that cannot log cannot report that either.
pub fn log(level: LogLevel, message: &str) {
    let _ = unsafe { imports::proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Has the root context's tick called every `period_ms`.
pub fn set_tick_period(period_ms: u32) -> HostResult<()> {
    check(unsafe { imports::proxy_set_tick_period_milliseconds(period_ms) })
}

/// A property of the stream; the parts of its path have zero bytes between, as in `xds\0cluster_name`.
pub fn property(path: &str) -> HostResult<Option<Vec<u8>>> {
    returned(|data, size| unsafe { imports::proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Publishes filter state `wasm.NAME` on the stream.
pub fn set_filter_state(name: &str, value: &[u8]) -> HostResult<()> {
    check(unsafe { imports::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Makes the filter state of this name last as long as the request does, and not only until an internal redirect. It is
/// called in a root context, once.
pub fn keep_filter_state(name: &str) -> HostResult<()> {
    // A `DeclarePropertyArguments` of Envoy: the name (1), the type (3) a string (1), the span (5) the request's (1).
    let size = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let arguments = [&[0x0a, size], name.as_bytes(), &[0x18, 1, 0x28, 1]].concat();
    call_foreign_function("declare_property", &arguments)
}

/// All headers.
pub fn headers(headers: Headers) -> HostResult<HeaderPairs> {
    let pairs =
        returned(|data, size| unsafe { imports::proxy_get_header_map_pairs(headers as u32, data, size) })?;
    Ok(HeaderPairs::new(pairs.unwrap_or_default()))
}

/// Sets a header, in place of any of that name.
pub fn set_header(headers: Headers, name: &str, value: &str) -> HostResult<()> {
    check(unsafe {
        imports::proxy_replace_header_map_value(
            headers as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Removes a header, however often it is there.
pub fn remove_header(headers: Headers, name: &str) -> HostResult<()> {
    match unsafe { imports::proxy_remove_header_map_value(headers as u32, name.as_ptr(), name.len()) } {
        NOT_FOUND => Ok(()),
        status => check(status),
    }
}

/// Up to `most` bytes of a buffer, from its start.
pub fn buffer(buffer: Buffer, most: usize) -> HostResult<Option<Vec<u8>>> {
    returned(|data, size| unsafe { imports::proxy_get_buffer_bytes(buffer as u32, 0, most, data, size) })
}

/// Puts `body` in place of the `size` bytes that a buffer holds.
pub fn replace_buffer(buffer: Buffer, size: usize, body: &[u8]) -> HostResult<()> {
    check(unsafe { imports::proxy_set_buffer_bytes(buffer as u32, 0, size, body.as_ptr(), body.len()) })
}

/// A value in shared data, with the number that a compare-and-swap needs.
pub fn shared_data(key: &str) -> HostResult<Option<(Vec<u8>, u32)>> {
    let mut cas = 0;
    let value = returned(|data, size| unsafe {
        imports::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut cas)
    })?;
    Ok(value.map(|bytes| (bytes, cas)))
}

/// Writes a value to shared data. With `cas`, only if nobody has written since it was read; `false` if somebody has.
pub fn set_shared_data(key: &str, value: &[u8], cas: Option<u32>) -> HostResult<bool> {
    let cas = cas.unwrap_or(0);
    match unsafe { imports::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) }
    {
        CAS_MISMATCH => Ok(false),
        status => check(status).map(|()| true),
    }
}

/// The kinds of statistics that the host keeps.
#[derive(Debug, Clone, Copy)]
pub enum Metric {
    /// Is added to.
    Counter = 0,
    /// Is set, or added to and taken from.
    Gauge = 1,
    /// Sorts values into buckets.
    Histogram = 2,
}

/// A statistic of this name, the same in every worker; returns the number by which it is known.
pub fn define_metric(kind: Metric, name: &str) -> HostResult<u32> {
    let mut id = 0;
    check(unsafe { imports::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

/// Adds to a counter or a gauge; from a gauge, also takes away.
pub fn increment_metric(id: u32, by: i64) -> HostResult<()> {
    check(unsafe { imports::proxy_increment_metric(id, by) })
}

/// Sets a gauge, or sorts a value into a histogram.
pub fn record_metric(id: u32, value: u64) -> HostResult<()> {
    check(unsafe { imports::proxy_record_metric(id, value) })
}

/// Makes the calls that follow concern this stream, or this root context.
pub fn set_effective_context(context: u32) -> HostResult<()> {
    check(unsafe { imports::proxy_set_effective_context(context) })
}

/// Lets the request of the effective context go on, which was paused.
pub fn resume_request() -> HostResult<()> {
    const HTTP_REQUEST: u32 = 0;
    check(unsafe { imports::proxy_continue_stream(HTTP_REQUEST) })
}

/// Has the route of the request chosen anew when it is next asked for.
pub fn clear_route_cache() -> HostResult<()> {
    call_foreign_function("clear_route_cache", &[])
}

/// Calls a function that Envoy has beyond the ABI.
fn call_foreign_function(name: &str, arguments: &[u8]) -> HostResult<()> {
    returned(|data, size| unsafe {
        imports::proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            arguments.as_ptr(),
            arguments.len(),
            data,
            size,
        )
    })
    .map(|_| ())
}

/// Answers the request in place of a server. `details` goes to the access log as response code details.
pub fn respond(status: u32, details: &str, headers: &[(&str, &str)], body: &[u8]) -> HostResult<()> {
    let headers = HeaderPairs::of(headers);
    let headers = headers.as_bytes();
    check(unsafe {
        imports::proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

/// Milliseconds of the host's monotonic clock, the same in every thread of the proxy.
pub fn now_ms() -> u64 {
    now_us() / 1_000
}

/// Microseconds of the same clock.
pub fn now_us() -> u64 {
    const MONOTONIC: u32 = 1;
    let mut nanoseconds = 0;
    let _ = unsafe { imports::clock_time_get(MONOTONIC, 0, &mut nanoseconds) };
    nanoseconds / 1_000
}

/// The time in one callback: read when it is first asked for, and once at most.
#[derive(Debug, Default)]
pub struct Clock(Option<u64>);

impl Clock {
    /// As [`now_ms`], when it was first asked for.
    pub fn now_ms(&mut self) -> u64 {
        *self.0.get_or_insert_with(now_ms)
    }
}

/// A number that no other worker draws.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = unsafe { imports::random_get(bytes.as_mut_ptr(), bytes.len()) };
    u64::from_le_bytes(bytes)
}

/// Calls `GET path` at `address` through an Envoy cluster. Returns the token by which the answer is known.
///
/// This one goes through the SDK, which must know the token to hand the answer to the right context.
pub fn http_get(
    cluster: &str,
    path: &str,
    authority: &str,
    extra: &[(&str, &str)],
    timeout_ms: u64,
) -> HostResult<u32> {
    let mut headers = vec![(":method", "GET"), (":path", path), (":authority", authority)];
    headers.extend(extra);
    let timeout = std::time::Duration::from_millis(timeout_ms);
    proxy_wasm::hostcalls::dispatch_http_call(cluster, headers, None, Vec::new(), timeout)
        .map_err(|status| HostError(status as u32))
}
