//! Nonsense where TLS is expected.

use std::fs;
use std::io::Write;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::relay_peer::{dial, rest};
use super::world::{Dice, World};

fn certificates(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for host in ["a", "b"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_string()]).unwrap();
        let chain = params.signed_by(&key, &issuer).unwrap().pem();
        fs::write(dir.join(format!("{host}.pem")), chain).unwrap();
        fs::write(dir.join(format!("{host}.key")), key.serialize_pem()).unwrap();
    }
}

#[test]
fn what_is_no_tls_ends_the_connection_and_nothing_else() {
    let more =
        "[tls]\ncertificate = \"{host}.pem\"\nkey = \"{host}.key\"\nauthority = \"ca.pem\"\n";
    let world = World::with("tls+tcp", more, certificates);
    let mut dice = Dice(11);
    for round in 0..120 {
        let mut stream = dial(world.ports[0]);
        let len = 1 + dice.below(5000) as usize;
        let mut bytes = dice.bytes(len);
        match round % 4 {
            // A hello of TLS that goes on as nonsense.
            0 => drop(bytes.splice(..0, [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3])),
            1 => drop(bytes.splice(..0, *b"RLNK\x01\x00")),
            2 => drop(bytes.splice(..0, [0x17, 3, 3, 0x40, 0])),
            _ => {}
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        assert!(rest(&mut stream).len() < 4096);
    }
    world.end();
}
