import { Group, Text } from "@mantine/core";
import { useId } from "react";

export function Logo({ size = 30, name = true }: { size?: number; name?: boolean }) {
  const gradient = useId();
  return (
    <Group gap={10} wrap="nowrap">
      <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
        <defs>
          <linearGradient id={gradient} x1="0" y1="0" x2="1" y2="1">
            <stop stopColor="#6d6bf5" />
            <stop offset="1" stopColor="#3b37c9" />
          </linearGradient>
        </defs>
        <rect width="32" height="32" rx="8" fill={`url(#${gradient})`} />
        <g fill="none" strokeWidth="2.6" strokeLinecap="round">
          <path d="M8 11.5c3-3 5.5-3 8 0s5 3 8 0" stroke="#fff" />
          <path d="M8 20.5c3-3 5.5-3 8 0s5 3 8 0" stroke="#a9f0e4" />
        </g>
      </svg>
      {name && (
        <Text component="span" fw={700} size="lg" style={{ letterSpacing: "-0.02em" }}>
          StreamSpace
        </Text>
      )}
    </Group>
  );
}
