// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// The bits of section "1.2 Feature bits".
@Suite struct FeaturesTests {
    @Test("Incompatible features have their bits")
    func incompatible() {
        let features: [IncompatibleFeatures] = [.dirty, .corrupt, .externalDataFile, .compressionType, .extendedL2]
        #expect(features.map(\.rawValue) == [1, 2, 4, 8, 16])
        #expect(IncompatibleFeatures.known.rawValue == 31)
    }

    @Test("Compatible and autoclear features have their bits")
    func others() {
        #expect(CompatibleFeatures.lazyRefcounts.rawValue == 1)
        #expect(AutoclearFeatures.bitmaps.rawValue == 1 && AutoclearFeatures.rawExternalData.rawValue == 2)
    }

    @Test("Numbers of methods and types")
    func numbers() {
        #expect([EncryptionMethod.none, .aes, .luks].map(\.rawValue) == [0, 1, 2])
        #expect([CompressionType.deflate, .zstd].map(\.rawValue) == [0, 1])
        #expect(EncryptionMethod(rawValue: 3) == nil && CompressionType(rawValue: 2) == nil)
    }
}
