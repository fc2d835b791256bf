// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(CommonCrypto)
    import CommonCrypto
#else
    import CCrypto
#endif

/// A SHA-256 in the making, by the system's library.
@safe final class SHA256 {
    private static let zeros = [UInt8](repeating: 0, count: 1 << 16)

    #if canImport(CommonCrypto)
        private var context = unsafe CC_SHA256_CTX()

        init() { _ = unsafe CC_SHA256_Init(&context) }

        func copy() -> SHA256 {
            let copy = SHA256()
            unsafe copy.context = unsafe context
            return copy
        }

        func update(_ bytes: Span<UInt8>) {
            // SAFETY: the call only reads the bytes, which outlive it.
            unsafe bytes.withUnsafeBufferPointer {
                _ = unsafe CC_SHA256_Update(&context, $0.baseAddress, CC_LONG($0.count))
            }
        }

        func finish() -> String {
            var digest = [UInt8](repeating: 0, count: Int(CC_SHA256_DIGEST_LENGTH))
            _ = unsafe CC_SHA256_Final(&digest, &context)
            return hexadecimal(digest)
        }
    #else
        // SAFETY: made here, never handed out, and freed with this value.
        private let context = unsafe EVP_MD_CTX_new()

        init() { _ = unsafe EVP_DigestInit_ex(context, EVP_sha256(), nil) }

        deinit { unsafe EVP_MD_CTX_free(context) }

        func copy() -> SHA256 {
            let copy = SHA256()
            _ = unsafe EVP_MD_CTX_copy_ex(copy.context, context)
            return copy
        }

        func update(_ bytes: Span<UInt8>) {
            // SAFETY: the call only reads the bytes, which outlive it.
            unsafe bytes.withUnsafeBufferPointer { _ = unsafe EVP_DigestUpdate(context, $0.baseAddress, $0.count) }
        }

        func finish() -> String {
            var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
            var count: UInt32 = 0
            _ = unsafe EVP_DigestFinal_ex(context, &digest, &count)
            return hexadecimal(Array(digest.prefix(Int(count))))
        }
    #endif

    func update(zeroCount: UInt64) {
        var rest = zeroCount
        while rest > 0 {
            let count = min(rest, UInt64(Self.zeros.count))
            update(Self.zeros.span.extracting(..<Int(count)))
            rest -= count
        }
    }
}
