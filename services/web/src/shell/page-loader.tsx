import { Center, Loader } from "@mantine/core";

export function PageLoader() {
  return (
    <Center mih="50vh">
      <Loader type="dots" size="lg" aria-label="Loading" />
    </Center>
  );
}
