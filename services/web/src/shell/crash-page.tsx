import { Button, Center, Code, Stack, Text, Title } from "@mantine/core";
import { useRouteError } from "react-router";

/** The last resort: a page broke, or its files were replaced by a newer version. */
export function CrashPage() {
  const error = useRouteError();
  return (
    <Center mih="100dvh" p="md">
      <Stack align="center" ta="center" maw={460}>
        <Title order={1} size="h3">
          This page stopped working
        </Title>
        <Text c="dimmed">Reload it to go on. Your sessions keep running.</Text>
        {error instanceof Error && <Code className="break">{error.message}</Code>}
        <Button onClick={() => location.reload()}>Reload</Button>
      </Stack>
    </Center>
  );
}
