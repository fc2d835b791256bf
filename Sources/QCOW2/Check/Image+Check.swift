// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Checks the whole image as it is in the file: the active state and all snapshots.
    ///
    /// Reads all metadata, and nothing else unless ``CheckOptions/decodesCompressedClusters`` is set; needs neither the
    /// backing file nor an encryption key, and changes nothing. Costs a read of every L2 table and refcount block,
    /// mostly one, in bounded memory.
    ///
    /// - Parameters:
    ///   - options: How much is looked at and handed out.
    ///   - report: Called with every finding as it is made, up to the limit for each code.
    /// - Returns: The findings in numbers, and how the image is laid out.
    /// - Throws: ``QCOW2Error`` with the code `inputOutput` or `cancelled`; or `notQCOW2`, `unsupported` or `corrupt`
    ///   if the file's header isn't that of the image any more. What is wrong with the image is no error but a finding.
    public func check(
        _ options: CheckOptions = CheckOptions(), _ report: @escaping (Finding) -> Void = { _ in }
    ) throws(QCOW2Error) -> CheckReport {
        var checker = try Checker(
            reading: storage, options, FindingSink(limitPerCode: options.findingLimitPerCode, report))
        try checker.run(reading: storage)
        return checker.report
    }
}
