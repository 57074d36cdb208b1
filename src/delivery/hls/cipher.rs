//! AES-128 in CBC mode with PKCS #7 padding: segments for players (RFC 8216, section 4.3.2.4).

use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use bytes::Bytes;

use crate::task::output::Key;

/// IV of a segment without one of its own: its media sequence number, big-endian (section 5.2).
pub fn sequence_iv(sequence: u64) -> [u8; 16] {
    u128::from(sequence).to_be_bytes()
}

/// Encrypts.
pub fn encrypt(key: &Key, iv: [u8; 16], plain: &[u8]) -> Bytes {
    let cipher = cbc::Encryptor::<Aes128>::new(&key.0.into(), &iv.into());
    let mut buffer = vec![0; plain.len() + 16];
    buffer[..plain.len()].copy_from_slice(plain);
    // There is room for the padding.
    let length = cipher.encrypt_padded::<Pkcs7>(&mut buffer, plain.len()).map_or(0, <[u8]>::len);
    buffer.truncate(length);
    buffer.into()
}

/// Decrypts; `None` for what the key did not encrypt.
pub fn decrypt(key: &Key, iv: [u8; 16], secret: &[u8]) -> Option<Bytes> {
    let cipher = cbc::Decryptor::<Aes128>::new(&key.0.into(), &iv.into());
    let mut buffer = secret.to_vec();
    let length = cipher.decrypt_padded::<Pkcs7>(&mut buffer).ok()?.len();
    buffer.truncate(length);
    Some(buffer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-38A, F.2.1 (CBC-AES128.Encrypt), first block.
    #[test]
    fn it_is_the_standard_cipher() {
        let key = Key(0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes());
        let iv = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f_u128.to_be_bytes();
        let plain = 0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a_u128.to_be_bytes();
        let secret = encrypt(&key, iv, &plain);
        assert_eq!(secret[..16], 0x7649_abac_8119_b246_cee9_8e9b_12e9_197d_u128.to_be_bytes());
        assert_eq!(secret.len(), 32, "a whole block of padding");
        assert_eq!(decrypt(&key, iv, &secret).unwrap(), plain[..]);
        assert_eq!(decrypt(&Key([0; 16]), iv, &secret), None);
        assert_eq!(decrypt(&key, iv, &secret[..17]), None);
    }
}
