import { ActionIcon, Group, Tooltip } from "@mantine/core";
import { IconCheck, IconCopy } from "@tabler/icons-react";
import { useEffect, useState } from "react";
import { copyText } from "../lib/clipboard";

export function CopyButton({ value, label, shown = false }: { value: string; label: string; shown?: boolean }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 1_500);
    return () => clearTimeout(timer);
  }, [copied]);
  const button = (
    <Tooltip label={copied ? "Copied" : label}>
      <ActionIcon size="sm" aria-label={label} onClick={() => void copyText(value).then(setCopied)}>
        {copied ? <IconCheck size={14} aria-hidden /> : <IconCopy size={14} aria-hidden />}
      </ActionIcon>
    </Tooltip>
  );
  if (!shown) return button;
  return (
    <Group gap={4} wrap="nowrap">
      <span className="mono break">{value}</span>
      {button}
    </Group>
  );
}
