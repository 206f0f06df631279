class Entry < AuditRecord
end
