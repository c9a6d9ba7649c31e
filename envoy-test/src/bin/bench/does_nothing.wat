;; A plugin that does nothing: Envoy enters it wherever it enters the real one, and it says "go on". What it costs is
;; what any plugin costs. It asks the host for nothing but to log, once, that a stream has come to it.
(module
  (import "env" "proxy_log" (func $log (param $level i32) (param $text i32) (param $length i32) (result i32)))

  (memory (export "memory") 1)
  (data (i32.const 0) "a stream passes through the plugin that does nothing")
  (global $has_told (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "_initialize"))
  ;; Nothing is asked for, so nothing is written here.
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (i32.const 1024))

  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))

  ;; A context with a parent is a stream.
  (func (export "proxy_on_context_create") (param $context i32) (param $parent i32)
    (if (i32.and (i32.ne (local.get $parent) (i32.const 0)) (i32.eqz (global.get $has_told)))
      (then
        (global.set $has_told (i32.const 1))
        (drop (call $log (i32.const 2) (i32.const 0) (i32.const 52))))))

  ;; 0 is "go on".
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_request_trailers") (param i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_response_trailers") (param i32 i32) (result i32) (i32.const 0))

  (func (export "proxy_on_log") (param i32))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_delete") (param i32)))
