//! Accepts connections. One that does not send a request in time is closed, so that nobody can keep the server busy.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The longest time between two requests of a connection, and the longest for the headers of one.
const LONGEST_HEADERS: Duration = Duration::from_secs(30);
/// How long the server waits where it can accept no connection, such as with too many open files.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Serves until `stopped` is over, and then for at most `farewell` those who are still connected.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    stopped: impl Future<Output = ()>,
    farewell: Duration,
) {
    let (stop, stopping) = watch::channel(());
    let accepting = async move {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    tokio::spawn(connection(stream, address, router.clone(), stopping.clone()));
                }
                Err(error) => {
                    tracing::debug!("a connection cannot be accepted: {error}");
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
            }
        }
    };
    {
        let (accepting, stopped) = (pin!(accepting), pin!(stopped));
        let _: Either<(Infallible, _), _> = select(accepting, stopped).await;
    }
    // Nobody may be connected any more.
    let _ = stop.send(());
    // Those who listen to events are connected for as long as they like.
    let _ = tokio::time::timeout(farewell, stop.closed()).await;
}

/// Answers the requests of one connection, until it ends or the server stops.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<()>,
) {
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(LONGEST_HEADERS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = match select(connection.as_mut(), pin!(stopping.changed())).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection has ended: {error}");
    }
}
