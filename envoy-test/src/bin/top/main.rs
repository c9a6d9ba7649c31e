//! `make top`: a live view of pods and models in the terminal, from the statistics of an Envoy that has the plugin.
//!
//! Without an Envoy to look at it starts the setting of `make run` and keeps it busy. Where its output is no terminal, or
//! with `--once`, it prints one frame and ends.

mod format;
mod screen;
mod window;

use std::io::{IsTerminal, stdout};
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use envoy_test::demonstration::{
    WARM_UP, configuration, models, simulated_servers, start_envoy, varied_request,
};
use envoy_test::envoy::{Client, Load, Protocol};
use ratatui::crossterm::event::{Event, KeyCode, KeyModifiers, poll, read};

use screen::Screen;
use window::Window;

/// How often the statistics are read.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Characters in a line of the one frame that is printed.
const FRAME_WIDTH: u16 = 120;

/// What keeps the simulated setting busy: so many clients, each resting so long at most between two requests.
const CLIENTS: usize = 64;
const REST_MAX: Duration = Duration::from_millis(600);
/// At first all clients ask at once, for adapters that no pod has loaded; what is shown comes after that.
const SETTLING: Duration = Duration::from_secs(5);

/// Shows the load of pods and what is asked of models, live.
#[derive(Debug, Parser)]
struct Arguments {
    /// Envoy's admin, as http://127.0.0.1:9901; without it a simulated setting is started.
    #[arg(long, value_parser = parse_admin)]
    admin: Option<SocketAddr>,
    /// Rates and quantiles are of so many last seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The folder of filter-config/ that the simulated setting has.
    #[arg(long, default_value = "stop-iteration")]
    configuration: String,
    /// Prints one frame and ends.
    #[arg(long)]
    once: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(admin) = arguments.admin {
        return show(&arguments, admin);
    }
    let servers = simulated_servers()?;
    let envoy = start_envoy(configuration(&arguments.configuration, &servers.addresses())?, false)?;
    sleep(WARM_UP);
    let client = Client::new(envoy.address(), Protocol::Http1);
    let models = models(&client)?;
    let _load = Load::start(client, CLIENTS, REST_MAX, move |index| varied_request(index, &models))?;
    sleep(SETTLING);
    show(&arguments, envoy.admin_address())
}

fn parse_admin(text: &str) -> Result<SocketAddr> {
    let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let mut addresses =
        authority.to_socket_addrs().with_context(|| format!("{text} is not http://HOST:PORT"))?;
    addresses.next().with_context(|| format!("{authority} has no address"))
}

fn show(arguments: &Arguments, admin: SocketAddr) -> Result<()> {
    let window = Window::new(admin, Duration::from_secs(arguments.seconds));
    if arguments.once || !stdout().is_terminal() { print_frame(window) } else { follow(window) }
}

/// One frame, of the time from now to the end of the window.
fn print_frame(mut window: Window) -> Result<()> {
    window.read()?;
    sleep(window.length());
    window.read()?;
    if window.is_empty() {
        bail!(
            "the Envoy at {} has no statistics of the plugin; is it loaded, and has it had a request?",
            window.admin()
        );
    }
    println!("{}", Screen::of(&window).text(FRAME_WIDTH)?);
    Ok(())
}

/// Draws until the user ends it.
fn follow(mut window: Window) -> Result<()> {
    let mut terminal = ratatui::init();
    let result = loop {
        let drawn = window.read().and_then(|()| {
            let screen = Screen::of(&window);
            Ok(terminal.draw(|frame| screen.draw(frame)).map(|_| ())?)
        });
        match drawn.and_then(|()| Ok(is_ended()?)) {
            Ok(false) => {}
            Ok(true) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ratatui::restore();
    result
}

/// Waits for the next frame; true if q, Escape or Ctrl-C was pressed.
fn is_ended() -> std::io::Result<bool> {
    if !poll(REFRESH_INTERVAL)? {
        return Ok(false);
    }
    let Event::Key(key) = read()? else { return Ok(false) };
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    Ok(control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}
