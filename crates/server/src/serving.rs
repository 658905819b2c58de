//! [`serve`]: the start and the end of serving.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime;

#[cfg(feature = "cluster")]
use crate::cluster;
use crate::options::Options;
use crate::server::Server;
use crate::{Error, Result, http, retention, worker};

/// How long connections are waited for when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// Threads for connections. Images are generated on others.
const THREADS: usize = 2;

/// Serves until `is_stopped` says so. `ready` is called with the address once it can be connected to. A job that runs at
/// the end goes on when the server is started again.
///
/// # Errors
/// The server cannot start.
pub fn serve(
    options: Options,
    ready: impl FnOnce(SocketAddr),
    is_stopped: impl Fn() -> bool + Send + 'static,
) -> Result<()> {
    if !options.address.ip().is_loopback() && options.keys.are_none() {
        return Err(Error::Unprotected {
            address: options.address,
        });
    }
    let address = options.address;
    let cannot_listen = |source| Error::Address { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(cannot_listen)?;
    listener.set_nonblocking(true).map_err(cannot_listen)?;
    let server = Arc::new(Server::open(options)?);
    retention::remove_orphans(&server);
    retention::sweep(&server);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(16)
        .thread_name("connections")
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    let worker = std::thread::Builder::new().name("worker".to_owned()).spawn({
        let server = server.clone();
        move || {
            #[cfg(feature = "cluster")]
            if let Some(queue) = &server.options.queue {
                return cluster::dispatch(&server, queue);
            }
            worker::work(&server);
        }
    });
    let worker = worker.map_err(Error::Thread)?;
    let served = runtime.block_on(async {
        let listener = TcpListener::from_std(listener).map_err(cannot_listen)?;
        ready(listener.local_addr().map_err(cannot_listen)?);
        tokio::spawn(retention::keep_sweeping(server.clone()));
        let stopped = {
            let server = server.clone();
            async move {
                while !is_stopped() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                server.stop();
            }
        };
        http::serve(listener, server.clone(), stopped, FAREWELL).await;
        Ok(())
    });
    server.stop();
    // The worker saves the state of its run first.
    if worker.join().is_err() {
        tracing::error!("the worker has panicked. This is a bug.");
    }
    runtime.shutdown_timeout(FAREWELL);
    served
}
