//! vLLM's page, with directives; what they are is said in the module's document.

pub const TEMPLATE: &str = include_str!("page.template");
