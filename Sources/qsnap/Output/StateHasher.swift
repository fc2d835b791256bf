// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

#if canImport(CommonCrypto)
    import CommonCrypto
#else
    import CCrypto
#endif

/// SHA-256 of several states at once: as long as states have been the same from their start, they share the work.
struct StateHasher {
    private var hashes: [SHA256]
    /// Which hash a state has.
    private var owners: [Int]

    init(count: Int) {
        hashes = [SHA256()]
        owners = [Int](repeating: 0, count: count)
    }

    /// Adds a range that some states share; no bytes stand for zeros.
    mutating func update(_ states: [Int], _ bytes: Span<UInt8>, _ range: Range<GuestOffset>) throws(QCOW2Error) {
        for owner in Set(states.map { owners[$0] }) {
            let members = states.filter { owners[$0] == owner }
            var target = owner
            if owners.count(where: { $0 == owner }) > members.count {
                // Others part from them here.
                target = hashes.count
                hashes.append(hashes[owner].copy())
                for state in members { owners[state] = target }
            }
            if bytes.isEmpty {
                hashes[target].update(zeroCount: range.upperBound.rawValue - range.lowerBound.rawValue)
            } else {
                hashes[target].update(bytes)
            }
        }
    }

    /// The hashes in hexadecimal, one for each state.
    func finish() -> [String] {
        let texts = hashes.map { $0.finish() }
        return owners.map { texts[$0] }
    }
}

/// A SHA-256 in the making, by the system's library.
@safe private final class SHA256 {
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
