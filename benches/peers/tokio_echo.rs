//! The tokio twin: current_thread, one task and one 64 KiB buffer per connection.
//! `tokio_echo echo|sink ADDRESS`.

#![forbid(unsafe_code)]

use std::io;

use ringlane_benches::peer::{Args, Role, Socket, raise_files, say};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let args = Args::from_env()?;
    raise_files();
    let (socket, real) = Socket::bind(&args.address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let accepting = tokio::spawn(accept(socket, args.role));
        say(&real)?;
        term.recv().await;
        accepting.abort();
        io::Result::Ok(())
    })?;
    if let Some(path) = real.strip_prefix("unix://") {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

async fn accept(socket: Socket, role: Role) -> io::Result<()> {
    match socket {
        Socket::Tcp(socket) => {
            let socket = TcpListener::from_std(socket)?;
            loop {
                let (stream, _) = socket.accept().await?;
                stream.set_nodelay(true)?;
                tokio::spawn(serve(stream, role));
            }
        }
        Socket::Unix(socket) => {
            let socket = UnixListener::from_std(socket)?;
            loop {
                let (stream, _) = socket.accept().await?;
                tokio::spawn(serve(stream, role));
            }
        }
    }
}

/// A reset ends this connection's task and no other.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, role: Role) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut received = 0u64;
    loop {
        let n = stream.read(&mut buffer).await?;
        received += n as u64;
        match role {
            Role::Echo if n == 0 => return Ok(()),
            Role::Echo => stream.write_all(&buffer[..n]).await?,
            Role::Sink if n == 0 => return stream.write_all(&received.to_le_bytes()).await,
            Role::Sink => {}
        }
    }
}
