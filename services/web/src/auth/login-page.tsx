import { Alert, Box, Button, PasswordInput, Stack, Text, TextInput, Title } from "@mantine/core";
import { IconAlertCircle, IconBolt, IconClock, IconShieldLock } from "@tabler/icons-react";
import { type SubmitEvent, useEffect, useState } from "react";
import { Navigate, useLocation } from "react-router";
import { useAuth, useBackend } from "../api/backend";
import { Logo } from "../shell/logo";
import { PageLoader } from "../shell/page-loader";
import { useTitle } from "../shell/title";
import { returnPath, signInMessage } from "./sign-in";

export function LoginPage() {
  useTitle("Sign in");
  const { auth } = useBackend();
  const { status, ended } = useAuth();
  const location = useLocation();
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  useEffect(() => {
    if (error) document.getElementById("password")?.focus();
  }, [error]);

  if (status === "starting") return <PageLoader />;
  if (status === "signed-in") return <Navigate to={returnPath(location.state)} replace />;

  const submit = async (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setError(null);
    try {
      await auth.signIn(username.trim(), password);
    } catch (problem) {
      setError(signInMessage(problem));
      setPassword("");
    } finally {
      setBusy(false);
    }
  };

  return (
    <div className="sign-in">
      <aside className="sign-in-art" aria-hidden="true">
        <Logo size={36} />
        <Stack gap="lg" maw={480}>
          <Title order={2} size={40} lh={1.12} style={{ letterSpacing: "-0.03em" }}>
            Your desktop, wherever you open a browser.
          </Title>
          <Stack gap="sm" opacity={0.85}>
            <Feature icon={<IconBolt size={20} />}>Desktops and applications ready in seconds</Feature>
            <Feature icon={<IconClock size={20} />}>Hibernate now, go on where you stopped later</Feature>
            <Feature icon={<IconShieldLock size={20} />}>Runs on your own clusters, your data stays there</Feature>
          </Stack>
        </Stack>
        <Text size="sm" opacity={0.6}>
          Open source
        </Text>
      </aside>
      <main className="sign-in-form">
        <Box component="form" onSubmit={(event) => void submit(event)} w="100%" maw={360} aria-label="Sign in">
          <Stack gap="md">
            <Box hiddenFrom="md" mb="sm">
              <Logo />
            </Box>
            <div>
              <Title order={1} size="h2" style={{ letterSpacing: "-0.02em" }}>
                Sign in
              </Title>
              <Text c="dimmed" mt={4}>
                Welcome back to StreamSpace.
              </Text>
            </div>
            {ended === "expired" && !error && (
              <Alert color="blue" variant="light" icon={<IconClock aria-hidden />} role="status">
                You were signed out. Sign in again to go on where you were.
              </Alert>
            )}
            {error && (
              <Alert color="red" variant="light" icon={<IconAlertCircle aria-hidden />} role="alert" data-testid="login-error">
                {error}
              </Alert>
            )}
            <TextInput
              label="User name"
              name="username"
              autoComplete="username"
              autoCapitalize="none"
              autoCorrect="off"
              spellCheck={false}
              autoFocus
              required
              withAsterisk={false}
              size="md"
              value={username}
              onChange={(event) => setUsername(event.currentTarget.value)}
              data-testid="login-username"
            />
            <PasswordInput
              id="password"
              label="Password"
              name="password"
              autoComplete="current-password"
              required
              withAsterisk={false}
              size="md"
              value={password}
              onChange={(event) => setPassword(event.currentTarget.value)}
              data-testid="login-password"
            />
            <Button type="submit" size="md" fullWidth loading={busy} data-testid="login-submit">
              Sign in
            </Button>
          </Stack>
        </Box>
      </main>
    </div>
  );
}

function Feature({ icon, children }: { icon: React.ReactNode; children: string }) {
  return (
    <Box style={{ display: "flex", gap: 12, alignItems: "center" }}>
      {icon}
      <Text span>{children}</Text>
    </Box>
  );
}
